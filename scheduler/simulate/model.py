"""What a simulation is given and what it gives: pure values. Times are seconds from the beginning of the demand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Arrival(NamedTuple):
    """One task: when it is sent, how long a worker's GPU works for it, and which checkpoint it needs ("" for any)."""

    at_s: float
    service_s: float
    model: str = ""


class Manner(StrEnum):
    """Who chooses what goes when a policy wants fewer workers."""

    CONSENT = "consent"
    """Ours: only idle workers go, after having agreed; nothing is killed."""
    BLIND = "blind"
    """The fleet chooses, whatever a worker does; its task starts anew elsewhere."""


class Shortage(NamedTuple):
    """A time in which EC2 launches no worker beyond the `most` that there are; nobody is taken back for it."""

    from_s: float
    until_s: float
    most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The world that a policy works in. The defaults are those in which published comparisons were made."""

    min_capacity: int = 0
    max_capacity: int = 20
    tick_s: float = 15.0
    launch_s: float = 30.0
    """From asking for a worker to its launch; not billed."""
    boot_s: float = 150.0
    """Mean time from launch to the first receive; billed."""
    boot_sigma: float = 0.2
    """Of the boot's lognormal."""
    least_billed_s: float = 60.0
    price_usd_per_hour: float = 0.18
    reclaims_per_hour: float = 0.02
    """How often EC2 takes one worker back."""
    notice_s: float = 120.0
    counts_age_s: tuple[float, float] = (30.0, 60.0)
    """How old the queue's counts are that a policy sees: uniform between these."""
    cloudwatch_s: float = 0.0
    """How much older they are where CloudWatch stands between."""
    switch_s: float = 5.0
    """What a task costs more on a worker that has another checkpoint loaded; taken off the times of the trace first."""
    redelivery_s: float = 300.0
    """After which the message of a killed worker comes back."""
    leave_s: float = 45.0
    """From the wish for fewer workers to the end of an idle one that consents: drain, lower target, confirm, end."""
    manner: Manner = Manner.CONSENT
    idle_exit_s: float | None = None
    """Workers end themselves, and lower the target, after idling for so long; None: they do not."""
    shortages: tuple[Shortage, ...] = ()
    late_after_s: float = 60.0
    seed: int = 1


class Sample(NamedTuple):
    """The fleet at one tick."""

    at_s: float
    target: int
    serving: int
    booting: int
    busy: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a simulation. A wait runs from a task's arrival to the start of the run that succeeded."""

    policy: str
    waits_s: tuple[float, ...]
    gpu_s: float
    """Billed seconds of all workers."""
    busy_s: float
    """Seconds in which they worked, those for killed runs included."""
    killed: int
    """Runs that ended with their worker because the fleet was made smaller."""
    interrupted: int
    """Runs given back because EC2 took their worker."""
    actions: int
    """Changes of the target."""
    peak: int
    """The most workers at a time."""
    duration_s: float
    unserved: int = 0
    """Tasks not done a day after the last one came; they count as waiting until then."""
    samples: tuple[Sample, ...] = ()
    price_usd_per_hour: float = 0.18
    late_after_s: float = 60.0

    @property
    def gpu_hours(self) -> float:
        """Billed hours."""
        return self.gpu_s / 3600

    @property
    def cost_usd(self) -> float:
        """What they cost."""
        return self.gpu_hours * self.price_usd_per_hour

    @property
    def busy_share(self) -> float:
        """Share of the billed time in which the GPUs worked."""
        return self.busy_s / self.gpu_s if self.gpu_s else 0.0

    @property
    def late_share(self) -> float:
        """Share of the tasks that waited longer than users accept."""
        late = sum(wait_s > self.late_after_s for wait_s in self.waits_s)
        return late / len(self.waits_s) if self.waits_s else 0.0

    def waits_at_s(self, *shares: float) -> tuple[float, ...]:
        """Return, for each of `shares` (0.95 for p95), the wait that so many of the tasks did not exceed."""
        waits = sorted(self.waits_s)
        return tuple(waits[min(len(waits) - 1, int(share * len(waits)))] if waits else 0.0 for share in shares)
