"""More workers when the queue is longer than a threshold, fewer when it is empty and nothing is under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scheduler.autoscale.policies.cooldown import stepped
from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Steps of a fixed size, `cooldown_s` apart."""

    name: ClassVar[str] = "threshold"
    scale_out_threshold: int = 5
    """Waiting tasks above which workers are added."""
    scale_out_step: int = 1
    scale_in_step: int = 1
    cooldown_s: float = 300.0

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds."""
        add = self.scale_out_step if snapshot.waiting > self.scale_out_threshold else 0
        return stepped(snapshot, state, add=add, remove=self.scale_in_step, cooldown_s=self.cooldown_s)
