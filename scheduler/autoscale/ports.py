"""What the leader and the workers need of the world beside the fleet itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.autoscale.book import Book, Pause, Published
from scheduler.autoscale.protocol import Change, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a conditional write: whether it took effect, and the record as it stands,
    None when there is none.
    """

    is_applied: bool
    worker: Worker | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The workers' records, those of workers that went lately included."""

    workers: tuple[Worker, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Instances whose record is there and makes no sense, and why. They may be at work: nothing is decided on them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Messages of all queues together, as SQS tells: visible, delayed, in flight."""

    visible: int
    delayed: int
    in_flight: int


class FleetState(Protocol):
    """The fleet's table. Every call raises Unavailable when it does not answer; reads are consistent."""

    def change(self, change: Change) -> Written:
        """Make one conditional write to a worker's record."""

    def worker(self, instance_id: str) -> Worker | None:
        """Return one worker's record. Raises Unavailable when it makes no sense as well."""

    def registry(self) -> Registry:
        """Return all records."""

    def book(self) -> Book | None:
        """Return the decision item."""

    def write_book(self, book: Book, *, seen: int | None) -> bool:
        """Write the decision item if it still has the version `seen` (None: if there is none); tell whether it was.

        True also when an earlier send of this very write had been applied.
        """

    def keep(self, book: Book) -> None:
        """Keep a decision with its inputs for `history`."""

    def history(self, most: int) -> Sequence[Book]:
        """Return the last decisions kept, newest first."""

    def published(self) -> Published | None:
        """Return the settings that all follow."""

    def publish(self, settings: Published, *, seen: int | None) -> bool:
        """Publish settings if those that stand have the version `seen` (None: if there are none); tell whether."""

    def pause(self) -> Pause | None:
        """Return the pause that an operator asked for, whether or not it is over."""

    def set_pause(self, pause: Pause) -> None:
        """Ask for a pause; one that is over already ends what there is."""


class Backlog(Protocol):
    """The queues that the fleet serves."""

    def counts(self) -> QueueCounts:
        """Ask SQS now. Raises Unavailable."""
