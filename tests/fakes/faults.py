"""Failures on order: what a fake's next calls raise, and whether the call had its effect all the same."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Order:
    error: Exception
    left: int
    on: str | None
    applied: bool


class Faults:
    """The failures a fake still owes, and how often each of its calls was made; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._orders: list[_Order] = []
        self.calls: Counter[str] = Counter()

    def fail_next(self, times: int, error: Exception, *, on: str | None = None, applied: bool = False) -> None:
        """Make the next `times` calls (of the one named `on`, else of any) raise `error`.

        With `applied` the call has its effect and only its answer is lost.
        """
        with self._lock:
            self._orders.append(_Order(error, times, on, applied))

    def clear(self) -> None:
        """Forget all failures still owed: the world is mended."""
        with self._lock:
            self._orders.clear()

    @contextmanager
    def around(self, call: str) -> Iterator[None]:
        """Stand around the body of `call`."""
        order = self._take(call)
        if order is not None and not order.applied:
            raise order.error
        yield
        if order is not None:
            raise order.error

    def _take(self, call: str) -> _Order | None:
        with self._lock:
            self.calls[call] += 1
            for order in self._orders:
                if order.on in {None, call}:
                    order.left -= 1
                    if order.left <= 0:
                        self._orders.remove(order)
                    return order
            return None
