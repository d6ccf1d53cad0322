"""The keepers: everything held stays hidden in its queue, everything claimed stays claimed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from scheduler.domain.errors import LeaseLost, Unavailable, Unstorable
from scheduler.domain.ports import Clock, MessageQueue, TaskStore
from scheduler.held import CLAIMED, ENDED, Held, HeldTasks, State
from scheduler.loops.lane import Lane
from scheduler.observe.metrics import Metrics

log = structlog.get_logger()
RENEWALS_PER_LEASE = 6


class VisibilityKeeper:
    """Extends the visibility of every message held. A failure is noted and stops no work: the claim decides."""

    def __init__(self, queues: Sequence[MessageQueue], *, held: HeldTasks, clock: Clock, metrics: Metrics) -> None:
        self._queues = queues
        self._held = held
        self._clock = clock
        self._metrics = metrics

    def cycle(self, *, due_after_s: float) -> None:
        """Extend what was not extended (or received) within the last `due_after_s`."""
        now = self._clock.monotonic()
        extended: set[Held] = set()
        for index, queue in enumerate(self._queues):
            with self._held.extending:
                due = [held for held in self._held.all() if self._is_due(held, now - due_after_s)]
                found = [(held, m) for held in due for m in self._held.receipts(held) if m.queue == index]
                refused = self._extend(queue, index, [message.receipt for _, message in found])
            for held, message in found:
                if refused is not None:
                    extended.add(held)
                if message.receipt in (refused or ()) and held.state not in ENDED:
                    log.warning("extend_refused", task_id=held.task.task_id, message_id=message.message_id)
        for held in extended:
            held.extended_s = now

    def _is_due(self, held: Held, extended_before_s: float) -> bool:
        """Tell whether its messages are ours to keep hidden, and need it."""
        return held.state is not State.RETURNING and not held.is_lost and held.extended_s <= extended_before_s

    def _extend(self, queue: MessageQueue, index: int, receipts: Sequence[str]) -> list[str] | None:
        if not receipts:
            return None
        try:
            return queue.extend(receipts)
        except Unavailable as error:
            self._metrics.aws_errors.inc()
            log.warning("extend_failed", queue=index, messages=len(receipts), error=str(error))
            return None


class ClaimKeeper:
    """Renews every claim held, and marks what the renewal tells: a cancellation, or a claim that is lost."""

    def __init__(
        self,
        tasks: TaskStore,
        *,
        held: HeldTasks,
        lease_s: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._tasks = tasks
        self._held = held
        self._lease_s = lease_s
        self._clock = clock
        self._metrics = metrics

    def cycle(self, *, due_after_s: float) -> None:
        """Renew what was not renewed (or claimed) within the last `due_after_s`."""
        now = self._clock.monotonic()
        for held in self._held.all():
            if held.state in CLAIMED and held.claim is not None and now - held.renewed_s >= due_after_s:
                self._renew(held)

    def _renew(self, held: Held) -> None:
        claim = held.claim
        if claim is None:
            return
        sent_s = self._clock.monotonic()
        try:
            cancelled = self._tasks.renew(claim, lease_s=self._lease_s, progress=held.progress, job_id=held.job_id)
        except LeaseLost:
            # Its end, or its release, may have been written meanwhile; then there is nothing to lose.
            if held.state in CLAIMED and held.claim is claim:
                held.is_lost = True
        except (Unavailable, Unstorable) as error:  # one that is never taken is one task's: it must not end the others'
            self._metrics.aws_errors.inc()
            log.warning("renewal_failed", task_id=held.task.task_id, error=str(error))
        else:
            held.renewed_s = sent_s
            held.is_cancelled = held.is_cancelled or cancelled


class Interrupter:
    """Ends runs that were cancelled or are another's; on a thread of its own,
    for an engine may be slow to hear of it.
    """

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes

    def cycle(self) -> None:
        """Interrupt what should run no more."""
        for lane in self._lanes:
            held = lane.running
            if held is not None and held.run is not None and (held.is_lost or held.is_cancelled):
                lane.engine.interrupt(held.run)
