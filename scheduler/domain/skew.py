"""How far this host's clock is off, bounded from the dates on AWS's answers."""

from __future__ import annotations

from collections import deque
from datetime import UTC
from email.utils import parsedate_to_datetime


class SkewBounds:
    """The interval that the skew (this host minus AWS, seconds) must lie in, over the last samples.

    A Date header is cut to whole seconds, so that an answer dated D was sent in [D, D + 1); it was sent after our
    request left and before the answer came. Each sample bounds the skew from both sides; the bounds meet.
    """

    def __init__(self, samples: int = 16) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=samples)

    def add(self, date_header: str, *, sent_at_s: float, received_at_s: float) -> None:
        """Take in one answer; times are this host's wall clock. A header that is no date is passed over."""
        try:
            date = parsedate_to_datetime(date_header)
        except (TypeError, ValueError, OverflowError):
            return
        date_s = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()  # HTTP knows no other zone
        self._samples.append((sent_at_s - date_s - 1.0, received_at_s - date_s))

    def least_s(self) -> float:
        """Return the smallest skew, without sign, that all samples allow: what is proved, not what is feared."""
        samples = list(self._samples)  # other threads add to it meanwhile
        if not samples:
            return 0.0
        low = max(sample[0] for sample in samples)
        high = min(sample[1] for sample in samples)
        if low > high:  # the clock was set between two samples: only the newest tells
            low, high = samples[-1]
        return max(0.0, low, -high)
