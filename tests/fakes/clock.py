"""Time that moves only when a test moves it."""

from __future__ import annotations

import threading

START_S = 1_900_000_000.25


class FakeClock:
    """Both clocks of the `Clock` port; safe for threads."""

    def __init__(self, now: float = START_S, monotonic: float = 1000.0) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        with self._lock:
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def set_wall(self, now: float) -> None:
        """Set the wall clock as a person or NTP does; the monotonic clock does not notice."""
        with self._lock:
            self._now = now
