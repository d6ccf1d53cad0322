"""The decision item: what was decided last, on what, and what is under way; it is the leader's lease too.

Each tick writes it on the condition that nobody else did since it was read. Others take over when it has not changed
for `LEASE_S` by their own clock. No other lock is needed, for nothing that leaders do can harm a worker: see
`protocol`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from scheduler.autoscale.snapshot import Snapshot

PAUSED = "paused by "
TICK_S = 15.0
BUSY_TICK_S = 5.0
"""Between the steps of a change that is under way: each must be seen to have taken effect before the next."""
LEASE_S = 45.0
ACT_WITHIN_S = 25.0
"""How long after it wrote the item a leader may still act on it: well before another may take over."""
ONCE_LEASE_S = 50.0
"""After how long, by the wall clock, one who looks only once may take over; it has no earlier look to compare with.

Less than the minute of a cron job, or it would find its own last look too young every other time.
"""


MOST_AHEAD_S = 600.0
"""The item's own plans reach no further."""


class Heard(NamedTuple):
    """The last heartbeat of a worker, and for how long it has not changed over the leaders' successful reads."""

    boot_id: str
    beat: int
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Workers that consented, and the target that is lowered for them before they are ended."""

    instance_ids: tuple[str, ...]
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """The decision item. Times are epoch seconds."""

    version: int = 0
    leader: str = ""
    written_s: float = 0.0
    policy: str = ""
    policy_state: Mapping[str, Any] = field(default_factory=dict)
    capacity: int | None = None
    """What the policy wants; None before the first decision."""
    reasons: tuple[str, ...] = ()
    hold: str = ""
    """Why nothing was done about it; empty when something could be."""
    snapshot: Snapshot | None = None
    batch: Batch | None = None
    short_since_s: float | None = None
    """Since when the fleet has had fewer members than its target."""
    short_cap: int | None = None
    """More than this is not asked for while capacity does not come."""
    short_until_s: float = 0.0
    lost_s: float = 0.0
    """When a member was last lost without our doing."""
    buried_s: float = 0.0
    """When a worker was last written off."""
    began_s: float = 0.0
    """When the registry began: who was launched before may work without being in it."""
    missing_s: Mapping[str, float] = field(default_factory=dict)
    """Since when each member that should be at work by now has been missed."""
    beats: Mapping[str, Heard] = field(default_factory=dict)
    """What was heard last of each worker."""
    read_s: float = 0.0
    """When all of this was read last; 0 when the last reading failed."""
    unreported: int = 0
    """Members in a row that never reported."""
    unfit: int = 0
    """Members in a row that reported and whose engine never got ready."""
    received_total: int = 0
    finished_total: int = 0
    boots: int = 0
    """Boots that were measured."""
    boot_s: float = 180.0
    """Launch to readiness, as measured; before that, what such images usually take."""
    service_s: float = 20.0
    """GPU seconds of a task over the whole fleet, as measured; before that, a guess."""
    settings_no: int = 0
    """The version of [autoscaling] that was followed."""

    def not_ahead_of(self, now_s: float) -> Book:
        """Return the book without marks in the future, which the wrong clock of an earlier leader has left."""
        since_s = self.short_since_s
        book = replace(
            self,
            lost_s=min(self.lost_s, now_s),
            buried_s=min(self.buried_s, now_s),
            began_s=min(self.began_s, now_s),
            read_s=min(self.read_s, now_s),
            short_since_s=None if since_s is None else min(since_s, now_s),
            short_until_s=min(self.short_until_s, now_s + MOST_AHEAD_S),
            missing_s={one: min(at_s, now_s) for one, at_s in self.missing_s.items()},
        )
        return replace(book, policy_state={}) if self.written_s > now_s + ONCE_LEASE_S else book

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON's types, without what the table keeps beside it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """An operator's wish that the fleet be left as it is, until then. Once it is over, it is the moment of resuming."""

    until_s: float
    by: str
    why: str = ""

    @property
    def told(self) -> str:
        """Who asked for it, until when, and why: what a decision says that was held for it."""
        until = datetime.fromtimestamp(self.until_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{PAUSED}{self.by} until {until}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The [autoscaling] section that all hosts follow: the one that was written last, wherever that was."""

    version: int
    modified_s: float
    """When its file was changed, epoch seconds."""
    by: str
    values: Mapping[str, str]
    """Each key that is common to the fleet, as it is written in conf.ini."""
