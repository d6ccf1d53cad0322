"""The one signal by which everything stops, and until when it may finish."""

from __future__ import annotations

import threading

from scheduler.domain.ports import Clock


class StopSignal:
    """Set once; every wait of every loop is a wait on it.

    After `set` there are `grace_s` seconds: running work may finish until `work_until_s`, and what must be written
    may be tried until `deadline_s` (both on the clock's monotonic time).
    """

    SETTLE_SHARE = 0.2
    """The last part of the grace belongs to interrupting, storing and giving back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = threading.Event()
        self.deadline_s = float("inf")
        self.work_until_s = float("inf")

    def set(self, grace_s: float) -> None:
        """Begin the stop; a second call changes nothing."""
        if not self._event.is_set():
            self.deadline_s = self._clock.monotonic() + grace_s
            self.work_until_s = self.deadline_s - min(15.0, grace_s * self.SETTLE_SHARE)
            self._event.set()

    def hasten(self, grace_s: float) -> None:
        """Leave no more than `grace_s` seconds from now; it never leaves more than before."""
        deadline_s = self._clock.monotonic() + grace_s
        if deadline_s < self.deadline_s:
            self.deadline_s = deadline_s
            self.work_until_s = min(self.work_until_s, deadline_s - min(15.0, grace_s * self.SETTLE_SHARE))

    def is_set(self) -> bool:
        """Tell whether we are stopping."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; True when we are stopping."""
        return self._event.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait before another try: at most so long, while we stop only briefly, and never past the deadline."""
        if self.wait(seconds):
            threading.Event().wait(min(0.5, self.left_s()))

    def work_left_s(self) -> float:
        """Return the seconds that running work may still take, infinite while nothing stops, never negative."""
        return max(0.0, self.work_until_s - self._clock.monotonic())

    def left_s(self) -> float:
        """Return the seconds until the deadline, infinite while nothing stops, never negative."""
        return max(0.0, self.deadline_s - self._clock.monotonic())
