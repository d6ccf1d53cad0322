"""What people use today, as published, for comparison; each with what the world must know of how it takes capacity
away.

Where a rival needs a number that its authors leave to the user, the default is the one they give or show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from scheduler.autoscale.snapshot import Decision, Policy, PolicyState, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a scaler takes capacity away, and how old the counts are that it sees."""

    ends_busy: bool = False
    """The cloud picks whom to end, busy or not. False: only idle workers go."""
    idle_exit_s: float | None = None
    """Workers end themselves, and lower the target, after idling for so long."""
    counts_later_s: float = 0.0
    """How much older its counts are than the queue's own (CloudWatch's minute)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A policy and its habits."""

    policy: Policy
    habits: Habits = field(default_factory=Habits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """As many workers as were told, always."""

    name: ClassVar[str] = "static"
    capacity: int

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return that number, within the snapshot's bounds."""
        return Decision(
            capacity=snapshot.within_bounds(self.capacity), reasons=(f"always {self.capacity}",), state=state
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTracking:
    """AWS target tracking on backlog per instance (visible / in service), by one-minute alarms.

    Out: the metric is above the target for three minutes, the fleet grows in proportion. In: it is below nine tenths
    for fifteen. While instances warm up they count as there when the fleet is to grow, and it does not shrink. With no
    instance the metric is undefined, so one at least is kept.
    """

    name: ClassVar[str] = "target-tracking"
    target_wait_s: float = 60.0
    """The latency accepted; divided by the mean service time it is the backlog per instance that is held."""
    OUT_AFTER: ClassVar[int] = 3
    IN_AFTER: ClassVar[int] = 15
    IN_BELOW: ClassVar[float] = 0.9
    PERIOD_S: ClassVar[float] = 60.0

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds and never none."""
        capacity = max(1, snapshot.within_bounds(state.get("wanted", snapshot.target)))
        if snapshot.at_s - state.get("at_s", -math.inf) < self.PERIOD_S:
            return Decision(capacity=capacity, reasons=("between two points of the metric",), state=state)
        goal = max(1.0, self.target_wait_s / snapshot.service_s)
        metric = snapshot.visible / max(1, snapshot.serving)
        above = state.get("above", 0) + 1 if metric > goal else 0
        below = state.get("below", 0) + 1 if metric < goal * self.IN_BELOW else 0
        wanted = capacity
        if above >= self.OUT_AFTER:
            wanted = max(capacity, math.ceil(snapshot.visible / goal))
        elif below >= self.IN_AFTER and not snapshot.booting_s:
            wanted, below = min(capacity - 1, max(1, math.ceil(capacity * metric / goal))), 0
        wanted = max(1, snapshot.within_bounds(wanted))
        reason = f"{metric:.1f} waiting per instance, {goal:.1f} wanted"
        return Decision(
            capacity=wanted,
            reasons=(reason,),
            state={"at_s": snapshot.at_s, "above": above, "below": below, "wanted": wanted},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Keda:
    """KEDA's SQS scaler under a HorizontalPodAutoscaler: ceil((visible + in flight) / queueLength), at most lately.

    Down to one: the largest wish of the stabilization window. To none: when nothing is there for the cooldown. A wish
    within a tenth of what there is changes nothing.
    """

    name: ClassVar[str] = "keda"
    queue_length: int = 5
    stabilization_s: float = 300.0
    cooldown_s: float = 300.0
    TOLERANCE: ClassVar[float] = 0.1
    POLL_S: ClassVar[float] = 30.0

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds."""
        now_s, held = snapshot.at_s, snapshot.within_bounds(state.get("wanted", snapshot.target))
        if now_s - state.get("at_s", -math.inf) < self.POLL_S:
            return Decision(capacity=held, reasons=("between two polls",), state=state)
        tasks = snapshot.visible + snapshot.in_flight
        active_s = now_s if tasks else state.get("active_s", -math.inf)
        wish = max(1, math.ceil(tasks / self.queue_length))
        if held and abs(tasks / self.queue_length / held - 1) <= self.TOLERANCE:
            wish = held
        wishes = [pair for pair in state.get("wishes", ()) if now_s - pair[0] < self.stabilization_s and pair[1] > wish]
        wishes.append([now_s, wish])
        if not tasks and now_s - active_s >= self.cooldown_s:
            wanted, wishes = 0, []
        elif not held and not tasks:
            wanted = 0
        else:
            wanted = wish if wish >= held else min(held, wishes[0][1])
        wanted = snapshot.within_bounds(wanted)
        kept = {"at_s": now_s, "wishes": wishes, "wanted": wanted}
        if active_s > -math.inf:
            kept["active_s"] = active_s
        return Decision(capacity=wanted, reasons=(f"{tasks} tasks, {self.queue_length} each",), state=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildkite:
    """A buildkite-like scaler with its own scale-in off: as many as jobs wait and run; idle agents end themselves."""

    name: ClassVar[str] = "buildkite"

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds and never less than there is."""
        jobs = snapshot.visible + snapshot.in_flight
        wanted = snapshot.within_bounds(max(snapshot.target, jobs))
        return Decision(capacity=wanted, reasons=(f"{jobs} jobs wait or run",), state=state)


def rivals() -> dict[str, Rival]:
    """Return the rivals by the names they are shown with."""
    blind = Habits(ends_busy=True)
    return {
        "target-tracking": Rival(policy=TargetTracking(), habits=Habits(ends_busy=True, counts_later_s=60.0)),
        "keda-5": Rival(policy=Keda(queue_length=5), habits=blind),
        "keda-1": Rival(policy=Keda(queue_length=1), habits=blind),
        "keda-1-gentle": Rival(policy=Keda(queue_length=1, stabilization_s=600.0)),
        "buildkite": Rival(policy=Buildkite(), habits=Habits(idle_exit_s=600.0)),
    }
