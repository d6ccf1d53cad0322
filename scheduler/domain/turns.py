"""Whose turn it is to receive: queues in their order of priority, of which none starves."""

from __future__ import annotations

import threading

from scheduler.domain.ports import Clock

FULL_FOR_S = 1.0
"""How long a full answer speaks of a queue whose receiver no longer looks for room, for it polls or is held up."""
LOWER_SHARE = 8
"""One receive in so many goes to a lower queue even while a higher one is full."""


class Turns:
    """Whose turn it is to receive, among the queues in their order of priority."""

    def __init__(self, queues: int, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._is_full = [False] * queues
        self._looked_s = [0.0] * queues
        self._receives = 0
        self._is_lowers_turn = False

    def may_receive(self, index: int) -> bool:
        """Tell the receiver of queue `index`, which looks for room, whether it may ask.

        It may while no higher queue is known to be full, and when its share has come. What was full stays so for as
        long as its receiver looks too: however long there is no room, the first of it is for the higher queue.
        """
        now = self._clock.monotonic()
        with self._lock:
            self._looked_s[index] = now
            return self._is_lowers_turn or not self._is_held_up(index, now)

    def _is_held_up(self, index: int, now: float) -> bool:
        return any(self._is_full[i] and now - self._looked_s[i] < FULL_FOR_S for i in range(index))

    def received(self, index: int, *, full: bool) -> None:
        """Note that queue `index` answered, and whether there was all that was asked for."""
        now = self._clock.monotonic()
        with self._lock:
            if self._is_held_up(index, now):
                self._is_lowers_turn = False
            self._is_full[index], self._looked_s[index] = full, now
            self._receives += 1
            if self._receives % LOWER_SHARE == LOWER_SHARE - 1:
                self._is_lowers_turn = True  # until a lower has taken it, however often a higher is quicker
