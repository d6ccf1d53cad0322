"""The default: seconds of work against the wait that users accept, and idle seconds against those who would be late.

Three things ask for workers, the largest wins: the work that waits, against what the fleet will have done by then; the
flow of arrivals, with room for its chance; and what was wanted lately, for as long as letting go would cost more than
holding on. docs/autoscaling.md derives the formulas and shows what they achieve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

from scheduler.autoscale.policies.arrivals import Arrivals
from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot

LATE_WORTH_S = {"thrifty": 90.0, "balanced": 300.0, "prompt": 2400.0}
"""For each preset, the seconds that a worker may idle to spare one task from being late: the one exchange rate."""

SPARE_LOAD = 0.1
"""Work for this share of a worker's time is not worth another worker: the others take it a moment later."""

COLD_PRIOR = 2.0
COLD_WEIGHT = 0.05
"""Tasks that come while the first worker boots: what is assumed at first, and the weight of each start seen since."""

OVERDUE_BOOTS = 2.0
"""A worker that has not come after so many usual boots is not counted on."""

MOST_PEAKS = 32
"""Bounds what is remembered of lately wanted levels; beyond it the fleet shrinks by larger steps."""

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Workers for what waits, for what flows in, and for what is likely to come back soon."""

    name: ClassVar[str] = "backlog"
    target_wait_s: float = 60.0
    """The wait that users accept."""
    late_worth_s: float = LATE_WORTH_S["balanced"]
    """Idle seconds of a worker that one task is worth which is spared a longer wait."""

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds and never below the tasks under way."""
        seen = Arrivals.after(snapshot, state.get("arrivals"))
        cold, crowd = _learn_cold(snapshot, seen, state)
        worked_s = snapshot.at_s if seen.is_work else state.get("worked_s")
        flow, flow_why = self._for_flow(snapshot, seen)
        work, work_why = self._for_backlog(snapshot, seen)
        warm_s = snapshot.boot_s + self.late_worth_s * crowd
        first = int(worked_s is not None and snapshot.at_s - worked_s < warm_s)
        if not first:
            flow = 0
        now = max(flow, work, first)
        peaks = _peaks(state.get("peaks", ()), at_s=snapshot.at_s, wanted=now, hold_s=snapshot.boot_s)
        held = peaks[0][1] if first else now
        capacity = snapshot.within_bounds(max(held, min(snapshot.busy, snapshot.serving)))
        why = {work: work_why, flow: flow_why}.get(now, f"the last work came {_ago(snapshot, worked_s)}")
        reasons = [why if now else f"no work for {_ago(snapshot, worked_s)}"]
        if held > now:
            reasons.append(f"{held} were wanted within {snapshot.boot_s:.0f} s, as long as another boot takes")
        if first and now <= 1:
            reasons.append(f"the first worker is kept for {warm_s:.0f} s")
        remembered = {
            "arrivals": seen.remembered(),
            "peaks": peaks,
            "worked_s": worked_s,
            "crowd": crowd,
            "cold": cold,
        }
        return Decision(capacity=capacity, reasons=tuple(reasons), state=remembered)

    def _patience_s(self, snapshot: Snapshot) -> float:
        """Return the wait that is worth a boot: the accepted one and, where a boot is worth many late tasks, more."""
        return self.target_wait_s * (1 + snapshot.boot_s / self.late_worth_s)

    def _for_flow(self, snapshot: Snapshot, seen: Arrivals) -> tuple[int, str]:
        """Return the workers that the arrivals of the last minutes keep busy, with room for their chance."""
        load = seen.per_s * snapshot.service_s
        if load <= 0:
            return 0, ""
        service_s = max(1.0, snapshot.service_s)
        share = self.late_worth_s / (self.late_worth_s + service_s)
        smoothed = load * service_s / (service_s + self._patience_s(snapshot))
        room = max(0.0, _NORMAL.inv_cdf(share)) * math.sqrt(smoothed)
        return max(0, math.ceil(load + room - SPARE_LOAD)), f"arrivals keep {load:.1f} busy, {room:.1f} more for chance"

    def _for_backlog(self, snapshot: Snapshot, seen: Arrivals) -> tuple[int, str]:
        """Return the workers that bring the wait back to what is accepted, by the time that new ones have booted."""
        waiting = seen.waiting
        if not waiting:
            return 0, ""
        wait_s, boot_s, service_s = self._patience_s(snapshot), snapshot.boot_s, snapshot.service_s
        coming = [age_s for age_s in snapshot.booting_s if age_s < OVERDUE_BOOTS * boot_s]
        there = snapshot.serving + len(snapshot.booting_s) + snapshot.unlaunched
        unseen = max(0, waiting - snapshot.held_waiting)
        work_s = (unseen + snapshot.running / 2) * service_s + snapshot.held_s
        horizon_s = boot_s + wait_s
        demand_s = work_s + max(seen.per_s, seen.burst_per_s) * service_s * horizon_s
        supply_s = snapshot.serving * horizon_s + snapshot.unlaunched * wait_s
        supply_s += sum(wait_s + min(boot_s, age_s) for age_s in coming)
        extra = self._extra(snapshot, seen, short_s=demand_s - supply_s)
        wanted = there + extra if extra > 0 else min(there, math.ceil(work_s / wait_s))
        return max(1, wanted), f"{work_s:.0f} s of work wait, {supply_s:.0f} of {demand_s:.0f} s are supplied"

    def _extra(self, snapshot: Snapshot, seen: Arrivals, *, short_s: float) -> int:
        """Return how many more workers to boot for `short_s` seconds of work that nobody will have done in time.

        Enough to do it within the accepted wait; more where those who come meanwhile are worth it: with n workers it
        takes short / n seconds, in which each arrival is late, and the n boots cost n x boot; the sum is least at
        n = sqrt(late_worth x arrivals per second x short / boot). Never more than there are tasks.
        """
        if short_s <= 0:
            return 0
        in_time = short_s / self._patience_s(snapshot)
        worth_it = math.sqrt(self.late_worth_s * seen.per_s * short_s / max(1.0, snapshot.boot_s))
        tasks = seen.waiting + math.ceil(max(seen.per_s, seen.burst_per_s) * (snapshot.boot_s + self.target_wait_s))
        return min(tasks, max(0, math.ceil(max(in_time, worth_it) - SPARE_LOAD)))


def _learn_cold(snapshot: Snapshot, seen: Arrivals, state: PolicyState) -> tuple[list[float] | None, float]:
    """Return the start from nothing that is being watched (when, tasks sent before), and the tasks that one meets.

    Only those count that one warm worker would have served meanwhile: it would not have saved a batch of hundreds.
    """
    cold, crowd = state.get("cold"), float(state.get("crowd", COLD_PRIOR))
    is_none = not (snapshot.serving or snapshot.booting_s or snapshot.unlaunched)
    if cold is None:
        return ([snapshot.at_s, seen.sent - seen.new] if is_none and seen.new else None), crowd
    if snapshot.at_s - cold[0] < snapshot.boot_s:
        return cold, crowd
    served = 1.0 + snapshot.boot_s / max(1.0, snapshot.service_s)
    spared = min(served, max(1.0, seen.sent - cold[1]))
    return None, crowd + COLD_WEIGHT * (spared - crowd)


def _peaks(peaks: Sequence[Sequence[Any]], *, at_s: float, wanted: int, hold_s: float) -> list[list[Any]]:
    """Return what was wanted within `hold_s`, each with its time, but nothing that a later one was as large as."""
    kept = [[*peak] for peak in peaks if peak[1] > wanted and at_s - peak[0] < hold_s]
    return [*kept[: MOST_PEAKS - 1], [at_s, wanted]]


def _ago(snapshot: Snapshot, then_s: float | None) -> str:
    return "long" if then_s is None else f"{snapshot.at_s - then_s:.0f} s"
