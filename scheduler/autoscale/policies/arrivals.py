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

HALF_LIFE_S = 300.0
"""After so long an arrival counts half in the flow: longer than a boot, so that what is booted is still wanted."""

MOST_RECEIVED = 12


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
    is_work: bool
    """Whether anything arrived, waits or runs."""
    received: tuple[tuple[float, int], ...]
    """When how many had been received, for the last minute and a little more."""
    empty_since_s: float | None

    @classmethod
    def after(cls, snapshot: Snapshot, before: Mapping[str, Any] | None) -> Self:
        """Return what is known with this snapshot; `before` is what was remembered last, None at first."""
        now_s, total = snapshot.at_s, snapshot.received_total
        in_queue = snapshot.visible + snapshot.delayed
        if before is None:
            before = {"at_s": now_s, "sent": total + in_queue, "per_s": 0.0, "received": [], "empty_since_s": None}
        received = [(at_s, count) for at_s, count in before["received"] if at_s > now_s - 2 * STALE_S]
        then = next((count for at_s, count in reversed(received) if at_s <= now_s - STALE_S), None)
        if then is None:
            then = received[0][1] if received else total
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
        return cls(
            at_s=now_s,
            sent=sent,
            new=new,
            waiting=waiting,
            per_s=per_s,
            is_work=bool(new or waiting or snapshot.running),
            received=tuple(received[-MOST_RECEIVED + 1 :]) + ((now_s, total),),
            empty_since_s=empty_since_s,
        )

    def remembered(self) -> dict[str, Any]:
        """Return what the next decision needs, in JSON's types."""
        return {
            "at_s": self.at_s,
            "sent": self.sent,
            "per_s": self.per_s,
            "received": [list(pair) for pair in self.received],
            "empty_since_s": self.empty_since_s,
        }
