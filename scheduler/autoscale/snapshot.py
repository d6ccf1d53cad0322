"""What a policy knows when it decides, and what it says; pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

PolicyState = Mapping[str, Any]
"""What a policy remembers from decision to decision, in JSON's types; another leader goes on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The queue and the fleet at one moment. All counts are workers or tasks, all times seconds.

    `visible`, `delayed` and `in_flight` are the queue's own counts, up to a minute old. `running` and `held_waiting`
    come from the workers' reports and are at most 10 s old; `in_flight` contains both.
    """

    at_s: float
    """When, on a clock that only grows while one leader follows another (epoch seconds)."""
    visible: int
    delayed: int = 0
    in_flight: int = 0
    running: int = 0
    held_waiting: int = 0
    received_total: int = 0
    """Tasks that workers ever received for the first time; never falls, whichever workers come and go."""

    target: int
    """The fleet's target capacity, in workers."""
    serving: int
    """Workers that report and take work."""
    booting_s: tuple[float, ...] = ()
    """For each member that has been launched and does not report yet: how long ago."""
    draining: int = 0
    """Workers that are on their way out and take no more work."""
    members: int = 0
    """Instances that EC2 shows and that are not ending."""
    waited_s: float = 0.0
    """How long the task that was received last had waited, the longest over the workers."""

    held_waiting_s: float | None = None
    """GPU seconds of `held_waiting`, by their classes; None when these are not known."""
    service_s: float
    """Mean GPU seconds of one task, checkpoint loads included, as the workers measure it."""
    boot_s: float
    """Seconds from raising the target to the first receive, as measured."""
    min_capacity: int = 0
    max_capacity: int

    @property
    def busy(self) -> int:
        """Workers' tasks under way: reported as running, or in flight and in nobody's report yet."""
        return self.running + max(0, self.in_flight - self.running - self.held_waiting)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a worker, in the queue or in one's hands."""
        return self.visible + self.delayed + self.held_waiting

    @property
    def held_s(self) -> float:
        """GPU seconds of `held_waiting`: by their classes where these are known, else by the mean."""
        return self.held_waiting * self.service_s if self.held_waiting_s is None else self.held_waiting_s

    @property
    def unlaunched(self) -> int:
        """Workers that the target asks for and the fleet has not launched."""
        return max(0, self.target - self.serving - len(self.booting_s) - self.draining)

    def within_bounds(self, capacity: int) -> int:
        """Return `capacity` clamped to what the configuration allows."""
        return max(self.min_capacity, min(self.max_capacity, capacity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many workers a policy wants. Fewer than there are is a wish: only idle workers that consent go."""

    capacity: int
    reasons: tuple[str, ...]
    """In plain words, with the figures that decided, the most important first."""
    state: PolicyState = field(default_factory=dict)


class Policy(Protocol):
    """A rule for the fleet's size. It keeps nothing: what it must remember goes through `state`."""

    @property
    def name(self) -> str:
        """Return the name that `[autoscaling] policy` takes."""

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        """Return the capacity wanted, within the snapshot's bounds; `state` is empty at the first call."""
