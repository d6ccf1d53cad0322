"""Schedules by one who knows all arrivals: what no policy can beat by much, to measure policies against.

Each task takes the place that costs least within the wait allowed: idling since the worker's last task, or another boot
when that is less, and a switch of checkpoints. With patience 0 that is the cheapest schedule in which nobody waits, as
far as checkpoints do not matter (the shortest gap first keeps the long ones whole, and those are what a boot saves);
with patience it is greedy, not a bound.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from scheduler.simulate.model import Arrival, Outcome, Terms
from scheduler.simulate.world import LEAST_SERVICE_S


class _Place(NamedTuple):
    """One worker as it could take a task, the cheapest first, then the soonest."""

    cost_s: float
    start_s: float
    number: int
    switch_s: float


class _Bench:
    """The workers that are worth keeping, by the end of their last task."""

    def __init__(self, terms: Terms) -> None:
        self._switch_s = terms.switch_s
        self._boot_s = terms.boot_s
        self._ends_s: list[float] = []
        self._models: list[str] = []

    def place(self, at_s: float, model: str, patience_s: float) -> _Place | None:
        """Return the cheapest place for a task; None when another boot costs less."""
        ends_s, models = self._ends_s, self._models
        stale = bisect_right(ends_s, at_s - self._boot_s)
        del ends_s[:stale], models[:stale]
        first_busy = bisect_right(ends_s, at_s)
        best: _Place | None = None
        for number in range(first_busy, bisect_right(ends_s, at_s + patience_s)):
            switch_s = self._switch_to(model, number)
            if best is None or switch_s < best.cost_s:
                best = _Place(switch_s, ends_s[number], number, switch_s)
            if switch_s == 0.0:
                break
        for number in range(first_busy - 1, -1, -1):
            gap_s = at_s - ends_s[number]
            if best is not None and gap_s > best.cost_s:
                break
            switch_s = self._switch_to(model, number)
            place = _Place(gap_s + switch_s, at_s, number, switch_s)
            best = place if best is None else min(best, place)
        return best

    def _switch_to(self, model: str, number: int) -> float:
        return self._switch_s if model and self._models[number] != model else 0.0

    def take(self, place: _Place, model: str, end_s: float) -> None:
        """Let that worker have the task."""
        del self._ends_s[place.number]
        loaded = self._models.pop(place.number)
        self.add(model or loaded, end_s)

    def add(self, model: str, end_s: float) -> None:
        """Let a worker end a task then."""
        number = bisect_left(self._ends_s, end_s)
        self._ends_s.insert(number, end_s)
        self._models.insert(number, model)

    def busy(self, at_s: float) -> int:
        """Return how many have a task then."""
        return len(self._ends_s) - bisect_right(self._ends_s, at_s)


def oracle(arrivals: Sequence[Arrival], terms: Terms, *, patience_s: float) -> Outcome:
    """Return the schedule in which nobody waits longer than `patience_s`, as an outcome named ``oracle-<patience>``.

    Capacity bounds, reclaims and shortages do not bind it.
    """
    bench = _Bench(terms)
    waits_s: list[float] = []
    gpu_s = busy_s = 0.0
    peak = 0
    for arrival in arrivals:
        at_s, model = arrival.at_s, arrival.model
        took_s = max(LEAST_SERVICE_S, arrival.service_s - terms.switch_s) if model else arrival.service_s
        place = bench.place(at_s, model, patience_s)
        if place is None:
            took_s += terms.switch_s if model else 0.0
            gpu_s += terms.boot_s + took_s
            bench.add(model, at_s + took_s)
            waits_s.append(0.0)
        else:
            gpu_s += place.cost_s - place.switch_s
            took_s += place.switch_s
            gpu_s += took_s
            bench.take(place, model, place.start_s + took_s)
            waits_s.append(place.start_s - at_s)
        busy_s += took_s
        peak = max(peak, bench.busy(at_s))
    return Outcome(
        policy=f"oracle-{patience_s:g}",
        waits_s=tuple(waits_s),
        gpu_s=gpu_s,
        busy_s=busy_s,
        killed=0,
        interrupted=0,
        actions=0,
        peak=peak,
        duration_s=arrivals[-1].at_s if arrivals else 0.0,
        price_usd_per_hour=terms.price_usd_per_hour,
        late_after_s=terms.late_after_s,
    )
