"""The port to what holds the workers. Sizes are counted in workers (weights other than 1 are refused by `doctor`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Condition(StrEnum):
    """What the fleet says of itself."""

    ACTIVE = "active"
    MODIFYING = "modifying"
    """A change is under way: the described target may be the old one, and another change is unsafe."""
    ENDED = "ended"
    """Cancelled, failed or deleted: nothing can be changed any more."""


class Life(StrEnum):
    """What EC2 says of a member."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    """Shutting down, terminated, stopping or stopped: it will do no more work in this boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One instance of the fleet, by EC2's own account; `launched_s` is epoch seconds."""

    instance_id: str
    life: Life
    launched_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The fleet at one moment. `members` holds every instance not yet forgotten by EC2, those that end included."""

    condition: Condition
    target: int
    members: tuple[Member, ...]
    min_size: int = 0
    """The fleet's own lower bound, below which it refuses to go (an Auto Scaling group's MinSize)."""
    max_size: int | None = None
    """The fleet's own upper bound, above which it takes no target; None when it has none."""
    trouble: str = ""
    """Why capacity does not come, in the fleet's own words; empty when it says nothing."""


class Fleet(Protocol):
    """What can be made larger and smaller. No call ever kills a worker that did not consent.

    Every call raises Unavailable (or AccessDenied) when AWS does not answer or throttles; it may be made again.
    """

    name: str
    """What it is, for people: ``spot-fleet sfr-...``."""

    lowers_target: bool
    """Whether the target is lowered by `set_target` before a worker ends. False where ending a worker lowers it in
    the same call (Auto Scaling group, single instance)."""

    replaces: bool
    """Whether a worker that ends while the target stays is replaced by the fleet."""

    def describe(self) -> FleetView:
        """Return the fleet as EC2 shows it now, all pages read, members cross-checked with their instances."""

    def set_target(self, capacity: int) -> None:
        """Ask for `capacity` workers; an excess is kept, never killed.

        Where `lowers_target` is False the target stays at least at what has been launched: only `end` takes those off.
        """

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:
        """End workers that have consented or are dead.

        Without `replace` the target falls with them where `lowers_target` is False; with it, others come in their
        place. Idempotent; one unknown or already ended id does not spoil the others. Where only a worker can end its
        own instance (a single one that is stopped) this raises Unavailable with what a person has to do.
        """

    def end_self(self, instance_id: str, *, replace: bool) -> None:
        """End this very instance, as its worker asks; `replace` keeps the target, so that another comes."""

    def faults(self) -> list[str]:
        """Return what in the fleet's own settings would make the protocol unsafe or useless.

        Each says what is wrong, then, after ": ", what to do.
        """
