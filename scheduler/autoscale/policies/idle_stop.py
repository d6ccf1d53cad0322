"""One worker, started when work waits and stopped when there has been none for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleStop:
    """Nothing or one. Work that is under way counts as work, however empty the queue looks."""

    name: ClassVar[str] = "idle-stop"
    idle_stop_minutes: float = 30.0

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return 0 or 1, within the snapshot's bounds."""
        now_s = snapshot.at_s
        if snapshot.waiting or snapshot.in_flight or snapshot.busy:
            reason = f"{snapshot.waiting} waiting, {snapshot.busy} under way"
            return Decision(capacity=snapshot.within_bounds(1), reasons=(reason,))
        if snapshot.target == 0:
            return Decision(capacity=snapshot.within_bounds(0), reasons=("stopped, and nothing waits",))
        since_s = float(state.get("idle_since_s", now_s))
        idle_s, stop_s = now_s - since_s, self.idle_stop_minutes * 60
        reason = f"no work for {idle_s:.0f} s of {stop_s:.0f} s"
        capacity = 0 if idle_s >= stop_s else 1
        return Decision(capacity=snapshot.within_bounds(capacity), reasons=(reason,), state={"idle_since_s": since_s})
