"""The system's clocks behind the `Clock` port."""

from __future__ import annotations

import time

# CLOCK_BOOTTIME goes on while the host is suspended, which a lease does too; where the system has none (macOS), the
# plain monotonic clock is the nearest.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Wall clock and CLOCK_BOOTTIME of this host."""

    def now(self) -> float:
        """Return epoch seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some fixed moment, suspended time included."""
        return time.clock_gettime(_STEADY)
