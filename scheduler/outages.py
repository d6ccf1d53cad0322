"""AWS that does not answer: what must be done is tried again for as long as there is time,
and no more work is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from scheduler.domain.errors import LeaseLost, Unavailable
from scheduler.domain.retry import backoff_s
from scheduler.held import Held
from scheduler.observe.metrics import Metrics
from scheduler.stop import StopSignal

log = structlog.get_logger()
T = TypeVar("T")

FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 15.0
"""Between two calls to an AWS that does not answer."""


class Outages:
    """Who insists on a call, and what troubles they have. Safe for threads."""

    def __init__(self, *, stop: StopSignal, metrics: Metrics) -> None:
        self._stop = stop
        self._metrics = metrics
        self._troubles: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def trouble(self) -> str | None:
        """Why AWS cannot be worked with just now, or None: while it is so, no more work is taken."""
        with self._lock:
            return next(iter(self._troubles.values()), None)

    def set_trouble(self, name: str, why: str | None) -> None:
        """Say that `name` (a task, or what is done to many) cannot be done because of AWS, or None: that it can."""
        with self._lock:
            if why is None:
                self._troubles.pop(name, None)
            else:
                self._troubles[name] = why

    def insist(self, held: Held, call: Callable[[], T], *, left_s: Callable[[], float] | None = None) -> T:
        """Return what `call` returns, trying again for as long as AWS is unavailable.

        Raises LeaseLost when the claim is lost meanwhile, Unavailable when there is no time left: by `left_s`, by
        default until the deadline of the stop.
        """
        left_s = left_s or self._stop.left_s
        times = 0
        try:
            while True:
                if held.is_lost:
                    raise LeaseLost(f"task {held.task.task_id} is held by another worker")
                try:
                    return call()
                except Unavailable as error:
                    times += 1
                    self._metrics.aws_errors.inc()
                    held.why = str(error)
                    self.set_trouble(held.task.task_id, str(error))
                    if times == 1:
                        log.warning("aws_unavailable", task_id=held.task.task_id, error=str(error))
                    if left_s() <= 0:
                        raise
                    self._stop.pause(min(MAX_PAUSE_S, backoff_s(times, FIRST_PAUSE_S)))
        finally:
            if times:
                self.set_trouble(held.task.task_id, None)
                held.why = ""
