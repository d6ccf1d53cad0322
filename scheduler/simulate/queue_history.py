"""What the queue's counts were, for those who ask now and are told of the past, as SQS does it."""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import NamedTuple

FORGET_AT_ONCE = 4096


class Counts(NamedTuple):
    """Messages that wait, and messages that somebody has received and not deleted."""

    visible: int
    in_flight: int


class QueueHistory:
    """The counts of the last while. Times only grow."""

    def __init__(self) -> None:
        self._since_s = [-inf]
        self._counts = [(0, 0)]

    def add(self, at_s: float, visible: int, in_flight: int) -> None:
        """Remember that from `at_s` on the counts are these."""
        self._since_s.append(at_s)
        self._counts.append((visible, in_flight))

    def at(self, at_s: float, *, oldest_s: float) -> Counts:
        """Return the counts as they were at `at_s`; nobody will ask for what was before `oldest_s`."""
        found = Counts(*self._counts[bisect_right(self._since_s, at_s) - 1])
        needless = bisect_right(self._since_s, oldest_s) - 1
        if needless > FORGET_AT_ONCE:
            del self._since_s[:needless], self._counts[:needless]
        return found
