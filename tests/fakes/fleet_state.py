"""The fleet's table in memory: every write atomic, every read consistent."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from scheduler.autoscale.book import Book, Pause, Published
from scheduler.autoscale.ports import Registry, Written
from scheduler.autoscale.protocol import Change, Worker
from scheduler.autoscale.state_records import WORKER_NEEDS
from scheduler.domain.errors import Unavailable

FIELDS = tuple(Worker.__dataclass_fields__)


def applied(change: Change, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the record after a write, or None where the condition refuses it.

    As DynamoDB does it: without a condition on what there is, an absent record is created.
    """
    if change.expects_none and record is not None:
        return None
    before = dict(record or {})
    if any(before.get(name) != value for name, value in change.requires.items()):
        return None
    if any(before.get(name) in values for name, values in change.forbids.items()):
        return None
    added = {name: before.get(name, 0) + more for name, more in change.adds.items()}
    after = before | dict(change.sets) | added
    return {name: value for name, value in after.items() if name not in change.drops}


class FakeFleetState:
    """The `FleetState` port; safe for threads. `is_down` makes every call raise Unavailable.

    Records expire by `now`, at once, where DynamoDB takes its time.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        self._now = now
        self._lock = threading.Lock()
        self.records: dict[str, dict[str, Any]] = {}
        self._book: Book | None = None
        self._history: list[Book] = []
        self._pause: Pause | None = None
        self._published: Published | None = None
        self.is_down = False

    def change(self, change: Change) -> Written:
        with self._open():
            before = self.records.get(change.instance_id)
            after = applied(change, before)
            if after is not None:
                self.records[change.instance_id] = after
            record = before if after is None else after
            return Written(is_applied=after is not None, worker=None if record is None else _worker(record))

    def lose(self) -> None:
        """Somebody empties the table."""
        with self._open():
            self.records.clear()
            self._book = None

    def worker(self, instance_id: str) -> Worker | None:
        with self._open():
            record = self.records.get(instance_id)
            return None if record is None else _worker(record)

    def registry(self) -> Registry:
        with self._open():
            for instance_id, record in list(self.records.items()):
                if record.get("expires_at", math.inf) < self._now():
                    del self.records[instance_id]
            whole = {one: record for one, record in sorted(self.records.items()) if record.keys() >= WORKER_NEEDS}
            return Registry(
                workers=tuple(_worker(record) for record in whole.values()),
                unreadable=dict.fromkeys(self.records.keys() - whole.keys(), "it is half there"),
            )

    def book(self) -> Book | None:
        with self._open():
            return self._book

    def write_book(self, book: Book, *, seen: int | None) -> bool:
        with self._open():
            if book != self._book:
                if (None if self._book is None else self._book.version) != seen:
                    return False
                self._book = book
            return True

    def keep(self, book: Book) -> None:
        with self._open():
            self._history = [*self._history[-99:], replace(book, policy_state={})]

    def history(self, most: int) -> Sequence[Book]:
        with self._open():
            return sorted(self._history, key=lambda book: -book.version)[:most]

    def published(self) -> Published | None:
        with self._open():
            return self._published

    def publish(self, settings: Published, *, seen: int | None) -> bool:
        with self._open():
            if settings != self._published:
                if (None if self._published is None else self._published.version) != seen:
                    return False
                self._published = settings
            return True

    def pause(self) -> Pause | None:
        with self._open():
            return self._pause

    def set_pause(self, pause: Pause) -> None:
        with self._open():
            self._pause = pause

    def _open(self) -> threading.Lock:
        if self.is_down:
            raise Unavailable("the fleet's table does not answer")
        return self._lock


def _worker(record: dict[str, Any]) -> Worker:
    if not record.keys() >= WORKER_NEEDS:
        raise Unavailable("the record is half there")
    return Worker(**{name: value for name, value in record.items() if name in FIELDS})
