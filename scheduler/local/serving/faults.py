"""Faults on demand: how often, and with whom; it knows neither what can go wrong nor how that is carried out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import NoneType
from typing import Any


@dataclass(slots=True, kw_only=True)
class Fault:
    """One order for trouble. `count` None means until cleared; `match` is a part of the prompt."""

    kind: StrEnum
    count: int | None = 1
    match: str | None = None
    max_batch: int | None = None
    after_steps: int = 1
    factor: float = 4.0

    def fits(self, prompt: str, batch_size: int) -> bool:
        """Tell whether it strikes this request."""
        if self.count == 0:
            return False
        if self.max_batch is not None and batch_size <= self.max_batch:
            return False
        return self.match is None or self.match in prompt


ORDER: dict[str, tuple[type, ...]] = {
    "kind": (str,),
    "count": (int, NoneType),
    "match": (str, NoneType),
    "max_batch": (int, NoneType),
    "after_steps": (int,),
    "factor": (int, float),
}
"""What an order may hold; what it leaves out is as `Fault` has it."""


class FaultBook:
    """The orders given so far; safe for threads.

    `kinds` is what may be ordered; the `lasting` among them strike no request and stand until cleared.
    """

    def __init__(self, kinds: type[StrEnum], lasting: frozenset[StrEnum] = frozenset()) -> None:
        self._kinds = kinds
        self._lasting = lasting
        self._guard = threading.Condition()
        self._faults: list[Fault] = []

    def add(self, order: Mapping[str, Any]) -> None:
        """Take an order, as the control route gets it. Raises ValueError naming what is wrong."""
        if unknown := sorted(set(order) - set(ORDER)):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(ORDER)}")
        if wrong := {name: value for name, value in order.items() if not isinstance(value, ORDER[name])}:
            raise ValueError(f"of the wrong type: {wrong}")
        given = dict(order)
        kind = self._kinds(given.pop("kind", None))
        if kind in self._lasting or given.get("max_batch") is not None:
            given.setdefault("count", None)
        with self._guard:
            self._faults.append(Fault(kind=kind, **given))

    def take(self, prompt: str, batch_size: int) -> Fault | None:
        """Return the first order that strikes this request, counted off; None leaves it alone."""
        with self._guard:
            striking = (entry for entry in self._faults if entry.kind not in self._lasting)
            fault = next((entry for entry in striking if entry.fits(prompt, batch_size)), None)
            if fault is not None and fault.count is not None:
                fault.count -= 1
            return fault

    def stands(self, kind: StrEnum, name: str) -> bool:
        """Tell whether a lasting fault is ordered for what bears this name."""
        with self._guard:
            return any(entry.kind is kind and (entry.match or "") in name for entry in self._faults)

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
