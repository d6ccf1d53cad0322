"""Faults on demand: what is to go wrong, how often, and with whom; it does not know how each is carried out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from scheduler.local.standin.fields import Field, integer, number, read, text


class FaultKind(StrEnum):
    """What can be made to go wrong."""

    OOM = "oom"
    """500 OutOfMemoryError; with `max_batch`, for every request of a larger batch."""
    FATAL = "fatal"
    """500 with a CUDA error."""
    HANG = "hang"
    """The render stands still and ignores interrupts until the faults are cleared."""
    CRASH = "crash"
    """The process dies; those who wait see their connection closed without a byte."""
    CORRUPT_IMAGE = "corrupt-image"
    """200, but the first image is cut in half."""
    SHORT = "short"
    """200, one image fewer than asked for, all seeds listed."""
    WRONG_MODEL = "wrong-model"
    """200, made with another checkpoint, as only `info` tells."""
    BLACK = "black"
    """200, all images black."""
    SLOW = "slow"
    """Every step takes `factor` times as long."""
    CORRUPT_CHECKPOINT = "corrupt-checkpoint"
    """The checkpoint whose file name contains `match` cannot be loaded; the attempt spoils all later renders."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """One order for trouble. `count` None means until cleared; `match` is a part of the prompt."""

    kind: FaultKind
    count: int | None = 1
    match: str | None = None
    max_batch: int | None = None
    after_steps: int = 1
    factor: float = 4.0

    def fits(self, prompt: str, batch_size: int) -> bool:
        """Tell whether it strikes this request."""
        if self.kind is FaultKind.CORRUPT_CHECKPOINT or self.count == 0:
            return False
        if self.max_batch is not None and batch_size <= self.max_batch:
            return False
        return self.match is None or self.match in prompt


ORDER = (
    Field("kind", text, nullable=False),
    Field("count", integer),
    Field("match", text),
    Field("max_batch", integer),
    Field("after_steps", integer, nullable=False),
    Field("factor", number, nullable=False),
)
"""What an order may hold; what it leaves out is as `Fault` has it."""


class FaultBook:
    """The orders given so far; safe for threads."""

    def __init__(self) -> None:
        self._guard = threading.Condition()
        self._faults: list[Fault] = []

    def add(self, order: Mapping[str, Any]) -> None:
        """Take an order, as the control route gets it. Raises ValueError or Invalid naming what is wrong."""
        known = [field.name for field in ORDER]
        if unknown := sorted(set(order) - set(known)):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        given = {name: value for name, value in read(ORDER, order).items() if name in order}
        kind = FaultKind(given.pop("kind", None))
        if kind is FaultKind.CORRUPT_CHECKPOINT or given.get("max_batch") is not None:
            given.setdefault("count", None)
        with self._guard:
            self._faults.append(Fault(kind=kind, **given))

    def take(self, prompt: str, batch_size: int) -> Fault | None:
        """Return the first order that strikes this request, counted off; None leaves it alone."""
        with self._guard:
            fault = next((entry for entry in self._faults if entry.fits(prompt, batch_size)), None)
            if fault is not None and fault.count is not None:
                fault.count -= 1
            return fault

    def spoils(self, file: str) -> bool:
        """Tell whether a checkpoint's file is ordered to be unreadable."""
        with self._guard:
            return any(
                entry.kind is FaultKind.CORRUPT_CHECKPOINT and (entry.match or "") in file for entry in self._faults
            )

    def clear(self) -> None:
        """Forget all orders and let go of whatever hangs."""
        with self._guard:
            self._faults.clear()
            self._guard.notify_all()

    def hang(self, fault: Fault) -> None:
        """Return when `fault` has been cleared away."""
        with self._guard:
            self._guard.wait_for(lambda: all(entry is not fault for entry in self._faults))

    def left(self) -> list[dict[str, Any]]:
        """Return the orders that can still strike."""
        with self._guard:
            return [asdict(fault) for fault in self._faults if fault.count != 0]
