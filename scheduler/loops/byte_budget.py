"""The memory that requests and answers may take, from before a task is rendered until its pictures are stored."""

from __future__ import annotations

import threading

from scheduler.held import Held


class ByteBudget:
    """Bounds what requests and answers may hold in memory; one that is too large alone may go alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._changed = threading.Condition()

    def reserve(self, size_bytes: int, timeout_s: float) -> bool:
        """Take so many bytes, waiting for them; False when they did not come free in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(size_bytes), timeout_s):
                return False
            self._used_bytes += size_bytes
            return True

    def _fits(self, size_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + size_bytes <= self._limit_bytes

    def release(self, held: Held) -> None:
        """Give back what a task reserved."""
        with self._changed:
            self._used_bytes -= held.reserved_bytes
            held.reserved_bytes = 0
            self._changed.notify_all()
