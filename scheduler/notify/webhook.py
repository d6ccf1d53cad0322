"""Webhooks sent beside the work: behind the guard of inputs, tried for a quarter of an hour, and then told as lost.

What waits here lives in memory only. A webhook is a courtesy: the record has the end whatever becomes of it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog

from scheduler.domain.destinations import Forbidden, shown
from scheduler.domain.ports import Clock
from scheduler.guarded_http import BadAnswer, Deadline, GuardedHttp, NoAnswer
from scheduler.observe.metrics import Metrics
from scheduler.wire.webhook import headers

log = structlog.get_logger()

PAUSES_S = (5.0, 25.0, 90.0, 240.0, 540.0)
"""Between the tries: a quarter of an hour in all."""
TIMEOUT_S = 10.0
"""For one try, the look-up and all else included."""
MAX_BODY_BYTES = 256 * 1024
MAX_WAITING_BYTES = 16 << 20
"""What may wait in memory; more is lost, for a receiver that is away must not cost a worker."""
MAX_HOST_BYTES = 4 << 20
"""The same for one host, which must not cost the others."""
MOST_AT_ONCE = 2
"""Tries at one host beside each other: one that hangs leaves the other threads alone."""
_GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    task_id: str
    url: str
    named: str
    body: bytes
    tries: int = 0

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2].lower()

    def again(self) -> _Delivery:
        return _Delivery(task_id=self.task_id, url=self.url, named=self.named, body=self.body, tries=self.tries + 1)


@dataclass(slots=True)
class _Host:
    """What waits for one host, by when it is due, and how many threads are at it."""

    waiting: list[tuple[float, int, _Delivery]] = field(default_factory=list)
    waiting_bytes: int = 0
    tried: int = 0

    def due_s(self, *, is_closing: bool) -> float:
        may_try = self.waiting and (is_closing or self.tried < MOST_AT_ONCE)
        return self.waiting[0][0] if may_try else float("inf")


class WebhookSender:
    """The `Webhooks` port. `run` may go on in several threads; `key` signs, None sends unsigned.

    Only a status of 2xx is a success. 410 and what the guard forbids are final; all else is tried again, redirects
    too, which are not followed.
    """

    def __init__(
        self,
        http: GuardedHttp,
        *,
        key: bytes | None,
        clock: Clock,
        metrics: Metrics,
        pauses_s: Sequence[float] = PAUSES_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._http = http
        self._key = key
        self._clock = clock
        self._metrics = metrics
        self._pauses_s = pauses_s
        self._timeout_s = timeout_s
        self._changed = threading.Condition()
        self._hosts: defaultdict[str, _Host] = defaultdict(_Host)
        self._numbers = itertools.count()
        self._until_s: float | None = None

    def send(self, url: str, body: bytes, *, named: str, task_id: str) -> None:
        """Take `body` to be sent as soon as may be; it neither waits nor raises."""
        delivery = _Delivery(task_id=task_id, url=url, named=named, body=body)
        if len(body) > MAX_BODY_BYTES:
            self._refuse(delivery, f"{len(body)} bytes; {MAX_BODY_BYTES} are the most")
        elif not self._wait(delivery, 0.0):
            self._lose(delivery, "too many wait already")

    def run(self) -> None:
        """Send until told to close, and then what is left once more."""
        while (delivery := self._next()) is not None:
            try:
                self._try(delivery)
            finally:
                self._tried(delivery.host)

    def close(self, within_s: float) -> None:
        """Let what waits be tried a last time within `within_s`; what does not succeed is lost."""
        with self._changed:
            self._until_s = self._clock.monotonic() + within_s
            self._changed.notify_all()

    def _wait(self, delivery: _Delivery, pause_s: float) -> bool:
        size_bytes, due_s = len(delivery.body), self._clock.monotonic() + pause_s
        with self._changed:
            host = self._hosts[delivery.host]
            all_bytes = sum(one.waiting_bytes for one in self._hosts.values())
            if all_bytes + size_bytes > MAX_WAITING_BYTES or host.waiting_bytes + size_bytes > MAX_HOST_BYTES:
                return False
            host.waiting_bytes += size_bytes
            heapq.heappush(host.waiting, (due_s, next(self._numbers), delivery))
            self._changed.notify()
            return True

    def _next(self) -> _Delivery | None:
        """Return what is due, waiting for it; None at the end."""
        with self._changed:
            while True:
                now_s, is_closing = self._clock.monotonic(), self._until_s is not None
                due = [(one.due_s(is_closing=is_closing), one) for one in self._hosts.values()]
                due_s, host = min(due, key=lambda pair: pair[0], default=(float("inf"), None))
                if host is not None and (due_s <= now_s or (is_closing and due_s < float("inf"))):
                    _, _, delivery = heapq.heappop(host.waiting)
                    host.waiting_bytes -= len(delivery.body)
                    host.tried += 1
                    return delivery
                if is_closing and not any(one.waiting for one in self._hosts.values()):
                    return None
                self._changed.wait(None if due_s == float("inf") else due_s - now_s)

    def _tried(self, name: str) -> None:
        with self._changed:
            host = self._hosts[name]
            host.tried -= 1
            if not host.tried and not host.waiting:
                del self._hosts[name]
            self._changed.notify_all()

    def _try(self, delivery: _Delivery) -> None:
        left_s = self._timeout_s
        if self._until_s is not None:
            left_s = min(left_s, self._until_s - self._clock.monotonic())
            if left_s <= 0:
                self._lose(delivery, "the worker stops")
                return
        told = headers(self._key, named=delivery.named, at_s=self._clock.now(), body=delivery.body)
        try:
            status = self._http.post(delivery.url, delivery.body, headers=told, deadline=Deadline(left_s))
        except Forbidden as error:
            self._refuse(delivery, str(error))
        except (BadAnswer, NoAnswer) as error:
            self._again(delivery, str(error))
        else:
            if 200 <= status < 300:
                self._metrics.announcements.labels("webhook", "sent").inc()
            elif status == _GONE:
                self._refuse(delivery, f"{shown(delivery.url)} answered {status}: it wants no more")
            else:
                self._again(delivery, f"{shown(delivery.url)} answered {status}")

    def _again(self, delivery: _Delivery, why: str) -> None:
        if delivery.tries >= len(self._pauses_s) or self._until_s is not None:
            self._lose(delivery, why)
        elif not self._wait(delivery.again(), self._pauses_s[delivery.tries]):
            self._lose(delivery, f"too many wait already; {why}")

    def _refuse(self, delivery: _Delivery, why: str) -> None:
        self._metrics.announcements.labels("webhook", "refused").inc()
        log.warning("webhook_refused", task_id=delivery.task_id, error=why)

    def _lose(self, delivery: _Delivery, why: str) -> None:
        self._metrics.announcements.labels("webhook", "lost").inc()
        log.warning("webhook_lost", task_id=delivery.task_id, tries=delivery.tries + 1, error=why)
