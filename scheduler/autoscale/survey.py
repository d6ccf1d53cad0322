"""What a policy is told, made from the census, the queue's counts and what was known before; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.autoscale.book import TICK_S, Book, Heard
from scheduler.autoscale.census import BOOT_GRACE_S, Census
from scheduler.autoscale.fleets.port import FleetView
from scheduler.autoscale.ports import QueueCounts
from scheduler.autoscale.protocol import State, Worker
from scheduler.autoscale.snapshot import Snapshot

BOOT_WEIGHT = 0.3
SERVICE_WEIGHT = 0.05
"""Of each task: service times differ by a factor of ten, and the mean of the last twenty or so is what matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the configuration allows."""

    min_capacity: int
    max_capacity: int

    def within(self, view: FleetView) -> Bounds:
        """Return what the fleet itself allows of it."""
        most = self.max_capacity if view.max_size is None else min(self.max_capacity, view.max_size)
        most = max(most, view.min_size)
        return Bounds(min_capacity=min(max(self.min_capacity, view.min_size), most), max_capacity=most)


def snapshot(
    census: Census, view: FleetView, counts: QueueCounts, book: Book, bounds: Bounds, *, now_s: float, sent: int = 0
) -> Snapshot:
    """Return what the policy decides on. `sent` is work just sent, which the queue's counts do not show yet."""
    reporting = (*census.serving, *census.unready, *census.silent, *census.leaving)
    launched = {member.instance_id: member.launched_s for member in view.members}
    unready = [now_s - launched.get(worker.instance_id, worker.registered_s) for worker in census.unready]
    return Snapshot(
        at_s=now_s,
        visible=max(counts.visible, sent),
        delayed=counts.delayed,
        in_flight=counts.in_flight,
        running=sum(worker.report.running for worker in reporting),
        held_waiting=sum(worker.report.waiting for worker in reporting),
        held_waiting_s=_held_waiting_s(reporting),
        received_total=book.received_total,
        target=view.target,
        serving=len(census.serving),
        booting_s=tuple(sorted([now_s - member.launched_s for member in census.booting] + unready)),
        draining=len(census.leaving)
        + len(census.ending)
        + len(census.silent)
        + len(census.unreported)
        + len(census.unreadable),
        members=census.alive,
        waited_s=max((worker.report.waited_s for worker in reporting), default=0.0),
        service_s=book.service_s,
        boot_s=book.boot_s,
        min_capacity=bounds.min_capacity,
        max_capacity=bounds.max_capacity,
    )


def _held_waiting_s(reporting: Iterable[Worker]) -> float | None:
    told = [worker.report.waiting_s for worker in reporting if worker.report.waiting]
    return None if None in told else sum(filter(None, told))


def listened(before: Book, workers: Iterable[Worker], *, now_s: float) -> dict[str, Heard]:
    """Return what is heard of each worker, `before` being what was heard at the last look, whoever looked.

    Only time between two successful reads counts, and of that no more than two ticks: while leaders slept, or the table
    did not answer, nobody could be heard.
    """
    passed_s = min(max(0.0, now_s - before.read_s), 2 * TICK_S) if before.read_s else 0.0
    heard: dict[str, Heard] = {}
    for worker in workers:
        last = before.beats.get(worker.instance_id)
        is_same = last is not None and (last.boot_id, last.beat) == (worker.boot_id, worker.beat)
        silent_s = last.silent_s + passed_s if last is not None and is_same else 0.0
        heard[worker.instance_id] = Heard(worker.boot_id, worker.beat, silent_s)
    return heard


class Drains:
    """How long those took to consent who were asked to go while this leader looked."""

    def __init__(self) -> None:
        self._asked_s: dict[tuple[str, int], float] = {}

    def ended(self, workers: Sequence[Worker]) -> tuple[float, ...]:
        """Return the seconds from DRAIN to DRAINED of each drain that has come to its end since the last call."""
        before = self._asked_s
        self._asked_s = {
            (worker.instance_id, worker.drain_no): worker.since_s for worker in workers if worker.state is State.DRAIN
        }
        drained = [worker for worker in workers if worker.state is State.DRAINED]
        asked_s = [(worker, before.get((worker.instance_id, worker.drain_no))) for worker in drained]
        return tuple(max(0.0, worker.since_s - at_s) for worker, at_s in asked_s if at_s is not None)


class Growth:
    """What the workers' own counters have grown by since this leader looked last.

    They begin at 0 with each start of a worker's daemon. What grew while nobody led is not counted.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, int, float]] = {}
        self._ready: set[tuple[str, str]] | None = None
        """Who was ready when this leader looked last; None before its first look."""

    def learn(
        self, book: Book, workers: Iterable[Worker], view: FleetView, *, unreadable: Collection[str] = ()
    ) -> Book:
        """Return the book with totals, service time and boot time brought up to date.

        What is known of the `unreadable` is kept, or all that they ever did would count again once they can be read.
        """
        received = finished = 0
        busy_s = 0.0
        seen: dict[tuple[str, str], tuple[int, int, float]] = {}
        seen |= {key: last for key, last in self._last.items() if key[0] in unreadable}
        ready = {key for key in self._ready or () if key[0] in unreadable}
        for worker in workers:
            key, report = (worker.instance_id, worker.boot_id), worker.report
            seen[key] = now = (report.received, report.finished, report.busy_s)
            before = self._last.get(key, now if self._ready is None else (0, 0, 0.0))
            if any(new < old for new, old in zip(now, before, strict=True)):
                before = (0, 0, 0.0)  # its daemon was started anew
            received += now[0] - before[0]
            finished += now[1] - before[1]
            busy_s += now[2] - before[2]
            if report.ready_s is not None:
                ready.add(key)
                if self._ready is not None and key not in self._ready:
                    book = _learn_boot(book, worker, view)
        self._last, self._ready = seen, ready
        book = replace(
            book, received_total=book.received_total + received, finished_total=book.finished_total + finished
        )
        if finished == 0 or busy_s <= 0:
            return book
        # Each task counts alike, so that one long task among many short ones does not pass for the rule.
        weight = 1 - (1 - SERVICE_WEIGHT) ** finished
        return replace(book, service_s=book.service_s + weight * (busy_s / finished - book.service_s))


def _learn_boot(book: Book, worker: Worker, view: FleetView) -> Book:
    launched: Mapping[str, float] = {member.instance_id: member.launched_s for member in view.members}
    ready_s, launched_s = worker.report.ready_s, launched.get(worker.instance_id)
    if ready_s is None or launched_s is None or not 0 < ready_s - launched_s <= BOOT_GRACE_S:
        return book
    return replace(book, boots=book.boots + 1, boot_s=book.boot_s + BOOT_WEIGHT * (ready_s - launched_s - book.boot_s))
