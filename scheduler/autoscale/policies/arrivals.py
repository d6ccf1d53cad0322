"""How many tasks have arrived, how fast they come and how many wait, from counts of different ages; pure.

The queue's own counts are 30 to 60 seconds old, the workers' counters a few seconds. What the queue showed is added to
what the workers had received by then, so that a task is not taken for waiting that a worker has long taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from scheduler.autoscale.snapshot import Snapshot

STALE_S = 60.0
"""The queue's counts are no older than this."""

HALF_LIFE_S = 240.0
"""After so long an arrival counts half in the flow: longer than a boot, so that what is booted is still wanted."""

BURST_S = 75.0
"""A burst is what came in so long: the age of the queue's counts and a tick."""
BURST_SIGMAS = 2.0
"""By so many standard deviations a burst is judged smaller than it looks, so that two tasks are not a flood."""

MOST_COUNTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """The arrivals as known at `at_s`; `new` of them were not known at the decision before."""

    at_s: float
    sent: int
    """Tasks ever sent, as far as is known; too high for a minute after workers gave tasks back."""
    new: int
    waiting: int
    """Tasks that wait for a worker now."""
    per_s: float
    """Arrivals per second, the older the less they count."""
    burst_per_s: float
    """Arrivals per second just now, as far as that is beyond chance; 0 when few came."""
    is_work: bool
    """Whether anything arrived, waits or runs."""
    counts: tuple[tuple[float, int, int], ...]
    """When how many had been received and sent, for the last two minutes."""
    empty_since_s: float | None

    @classmethod
    def after(cls, snapshot: Snapshot, before: Mapping[str, Any] | None) -> Self:
        """Return what is known with this snapshot; `before` is what was remembered last, None at first."""
        now_s, total = snapshot.at_s, snapshot.received_total
        in_queue = snapshot.visible + snapshot.delayed
        if before is None:
            before = {"at_s": now_s, "sent": total + in_queue, "per_s": 0.0, "counts": [], "empty_since_s": None}
        counts = [(at_s, taken, sent) for at_s, taken, sent in before["counts"] if at_s > now_s - 2 * STALE_S]
        old = [taken for at_s, taken, _ in counts if at_s <= now_s - STALE_S]
        then = old[-1] if old else counts[0][1] if counts else total
        last = int(before["sent"])
        sent = max(last, total, in_queue + then)
        new = sent - last
        empty_since_s = (before["empty_since_s"] or now_s) if not in_queue else None
        if empty_since_s is not None and now_s - empty_since_s >= STALE_S:
            sent = total
        elapsed_s = max(0.0, now_s - before["at_s"])
        fade = math.exp2(-elapsed_s / HALF_LIFE_S)
        per_s = before["per_s"] * fade + new * math.log(2) / HALF_LIFE_S * math.sqrt(fade)
        waiting = max(0, sent - total) + snapshot.held_waiting
        lately = max(0, sent - next((count for at_s, _, count in counts if at_s >= now_s - BURST_S), sent))
        burst = max(0.0, lately - BURST_SIGMAS * math.sqrt(lately))
        return cls(
            at_s=now_s,
            sent=sent,
            new=new,
            waiting=waiting,
            per_s=per_s,
            burst_per_s=burst / BURST_S,
            is_work=bool(new or waiting or snapshot.running),
            counts=(*counts[-MOST_COUNTS + 1 :], (now_s, total, sent)),
            empty_since_s=empty_since_s,
        )

    def remembered(self) -> dict[str, Any]:
        """Return what the next decision needs, in JSON's types."""
        return {
            "at_s": self.at_s,
            "sent": self.sent,
            "per_s": self.per_s,
            "counts": [list(count) for count in self.counts],
            "empty_since_s": self.empty_since_s,
        }
