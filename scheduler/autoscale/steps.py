"""What a plan is made from and what it consists of, as values; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.autoscale.book import Book
from scheduler.autoscale.census import FRESH_S, Census
from scheduler.autoscale.fleets.port import FleetView
from scheduler.autoscale.protocol import Change, Worker

MOST_STILLBORN = 3
"""After so many members in a row that never worked, no more are asked for until one does, or an operator resumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that people should see: its name and its fields."""

    name: str
    fields: Mapping[str, Any]
    is_alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One whom the leader ends, because it was told to and did not, or cannot any more."""

    instance_id: str
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that a plan is made from. `wanted` is the policy's capacity,
    None while it must not be known or used.
    """

    now_s: float
    view: FleetView
    census: Census
    book: Book
    wanted: int | None
    silent_s: Mapping[str, float]
    leader: str
    deadline_s: float
    """How long a task may run."""
    settings_no: int
    lowers_target: bool
    replaces: bool

    def silence_s(self, worker: Worker) -> float:
        """Return for how long a worker's heartbeat has not changed."""
        return self.silent_s.get(worker.instance_id, 0.0)

    def is_silent(self, worker: Worker) -> bool:
        """Tell whether a worker takes no work any more, whatever has become of it."""
        return self.silence_s(worker) >= FRESH_S


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to do, in this order: registry writes, then the target, then ends; `book` is written before any of it."""

    book: Book
    writes: list[Change] = field(default_factory=list)
    target: int | None = None
    ends: list[End] = field(default_factory=list)
    lowered: set[str] = field(default_factory=set)
    """Workers on their way out whom the target does not count any more."""
    events: list[Event] = field(default_factory=list)

    def tell(self, name: str, *, alarm: bool = False, **fields: Any) -> None:
        """Add an event."""
        self.events.append(Event(name=name, fields=fields, is_alarm=alarm))


def is_hopeless(book: Book) -> bool:
    """Tell whether so many in a row never worked that asking for more is a bill for nothing."""
    return max(book.unreported, book.unfit) >= MOST_STILLBORN
