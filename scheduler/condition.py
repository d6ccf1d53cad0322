"""How this worker is: whether all is well, and what `GET /health` shows of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.ports import Clock
from scheduler.domain.skew import SkewBounds
from scheduler.held import HeldTasks
from scheduler.loops.lane import Lane
from scheduler.loops.receive import ReceiveLoop
from scheduler.outages import Outages
from scheduler.stop import StopSignal

MIN_FREE_BYTES = 200 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Condition:
    """Looks at the parts of a worker; it changes none of them."""

    clock: Clock
    stop: StopSignal
    held: HeldTasks
    lanes: Sequence[Lane]
    outages: Outages
    skew: SkewBounds
    describe_host: Callable[[], dict[str, Any]] = dict
    receivers: Sequence[ReceiveLoop] = ()
    lease_s: int = 0
    """Of the queues; 0 until they are known."""
    aws_why: str | None = "starting: AWS has not answered yet"
    """Why the worker has not begun yet."""

    def skewed(self) -> str | None:
        """Say by how much this host's clock is proved to be off, when that endangers leases."""
        least_s = self.skew.least_s()
        if least_s <= self.lease_s / 12:
            return None
        return f"this host's clock is at least {least_s:.1f} s off AWS's: synchronise it (chrony or systemd-timesyncd)"

    def unfit(self) -> str:
        """Say why this host cannot work though its AWS answers; empty when it can."""
        if not _disk()[0]:
            return f"less than {MIN_FREE_BYTES} bytes are free on its disk"
        if not any(lane.is_ready for lane in self.lanes):
            return "; ".join(lane.why for lane in self.lanes)
        return ""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether all is well, and the particulars."""
        now = self.clock.monotonic()
        aws = self._aws_trouble()
        has_room, free_bytes = _disk()
        polls = [receiver.last_poll_s for receiver in self.receivers if receiver.last_poll_s is not None]
        is_well = aws is None and has_room and any(lane.is_ready for lane in self.lanes)
        is_well = is_well and not self.stop.is_set()
        return is_well, {
            "status": "stopping" if self.stop.is_set() else "healthy" if is_well else "unhealthy",
            "engines": [self._engine(lane, now) for lane in self.lanes],
            "aws": {"ok": aws is None, "why": aws or ""},
            "disk": {"ok": has_room, "free_bytes": free_bytes},
            "last_poll_s_ago": round(now - max(polls), 1) if polls else None,
            "host": self.describe_host(),
            "held": self.held.describe(),
        }

    def _aws_trouble(self) -> str | None:
        polling = next((receiver.trouble for receiver in self.receivers if receiver.trouble), None)
        return self.aws_why or self.outages.trouble or polling or self.skewed()

    @staticmethod
    def _engine(lane: Lane, now: float) -> dict[str, Any]:
        return {
            "engine": lane.engine.name,
            "ready": lane.is_ready,
            "healthy": lane.is_healthy,
            "why": lane.why,
            "for_s": round(now - lane.since_s, 1),
            "checkpoint": lane.engine.loaded(),
        }


def _disk() -> tuple[bool, int]:
    """Return whether the disk has room to work, and how many bytes are free on it."""
    free_bytes = shutil.disk_usage(".").free
    return free_bytes > MIN_FREE_BYTES, free_bytes
