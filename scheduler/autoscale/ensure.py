"""For whoever sends tasks: see to it that somebody will work on them, also when there is nobody left to notice."""

from __future__ import annotations

import threading

from scheduler.autoscale.leader import Leader, Outcome
from scheduler.domain.ports import Clock

EVERY_S = 15.0


class CapacityKeeper:
    """Called after each send; looks at the fleet at most once in 15 s per process. Safe for threads.

    It counts the work just sent, which the queue's own counts show up to a minute later. While a leader lives it does
    nothing: that one looks every 15 s itself.
    """

    def __init__(self, leader: Leader, clock: Clock) -> None:
        self._leader = leader
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = 0
        self._looked_s = float("-inf")

    def ensure_capacity(self, sent: int = 1) -> Outcome | None:
        """Have the fleet grow if `sent` more tasks need it; None when it was looked at just now.

        Raises Unavailable when the fleet cannot be looked at; the next call tries again, and counts these tasks too.
        """
        with self._lock:
            self._sent += sent
            if self._clock.monotonic() - self._looked_s < EVERY_S:
                return None
            outcome = self._leader.tick(sent=self._sent)
            if not outcome.leads or not outcome.look.is_blind:  # else the next call looks, and counts these too
                self._looked_s = self._clock.monotonic()
                self._sent = 0
            return outcome
