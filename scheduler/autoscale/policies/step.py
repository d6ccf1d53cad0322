"""Workers added by steps of queue length, taken away when it is empty and nothing is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scheduler.autoscale.policies.cooldown import stepped
from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The longer the queue, the more are added at a time; `cooldown_s` lies between changes."""

    name: ClassVar[str] = "step"
    steps: tuple[tuple[int, int], ...] = ((10, 1), (50, 2), (100, 3))
    """Waiting tasks, and the workers added from that many on (to the next step). In any order."""
    scale_in_step: int = 1
    cooldown_s: float = 300.0

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds."""
        reached = [step for step in self.steps if snapshot.waiting >= step[0]]
        add = max(reached)[1] if reached else 0
        return stepped(snapshot, state, add=add, remove=self.scale_in_step, cooldown_s=self.cooldown_s)
