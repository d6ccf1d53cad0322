"""What becomes of the messages of held tasks: shown again, refused, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

import structlog

from scheduler.domain.errors import Rejected, Unavailable
from scheduler.domain.ports import Clock, MessageQueue
from scheduler.domain.retry import backoff_s
from scheduler.domain.task import Message
from scheduler.held import Held, HeldTasks, State
from scheduler.observe.metrics import Metrics
from scheduler.stop import StopSignal

log = structlog.get_logger()

DELETE_ATTEMPTS = 5
RESENT_DELAY_S = 2.0
"""A message that asks for a failed task anew comes back after the old one's delete."""


class HeldMessages:
    """Every message received leaves by here. Safe for threads: a held task is in one loop at a time."""

    def __init__(
        self,
        queues: Sequence[MessageQueue],
        *,
        held: HeldTasks,
        clock: Clock,
        metrics: Metrics,
        stop: StopSignal,
    ) -> None:
        self._queues = queues
        self._held = held
        self._clock = clock
        self._metrics = metrics
        self._stop = stop
        self.deletions: SimpleQueue[Held | None] = SimpleQueue()

    def return_unstarted(self, *, older_than_s: float, reason: str) -> None:
        """Give back what waits here unclaimed for longer than `older_than_s`,
        at once when we stop, else with back-off.
        """
        now = self._clock.monotonic()
        for held in self._held.all():
            if now - held.received_s >= older_than_s and self._held.take(held, State.WAITING, State.RETURNING):
                self.give_back(held, backoff_s(held.receive_count), reason=reason)

    def give_back(self, held: Held, delay_s: float, *, reason: str) -> None:
        """Show a task's messages again after `delay_s`, at once when we stop, and hold it no more."""
        self._held.move(held, State.RETURNING, reason)
        with self._held.extending:
            pass  # an extension under way would hide the messages again after they were shown
        while messages := self._held.receipts(held):
            self.put_back(messages, 0.0 if self._stop.is_set() else delay_s, reason=reason)
            self._held.acknowledge(held, messages)

    def put_back(self, messages: Sequence[Message], delay_s: float, *, reason: str) -> None:
        """Make messages visible after `delay_s`. When SQS fails they become so by themselves, a lease from now."""
        self._metrics.returned.labels(reason).inc(len(messages))
        for queue in sorted({message.queue for message in messages}):
            receipts = [message.receipt for message in messages if message.queue == queue]
            try:
                self._queues[queue].give_back(receipts, delay_s=delay_s)
            except Unavailable as error:
                log.warning("give_back_failed", messages=len(receipts), error=str(error))

    def refuse(self, message: Message, error: Rejected) -> None:
        """Keep a message that cannot become a task, with the reason. When AWS fails it stays in the queue."""
        try:
            self._queues[message.queue].refuse(message, error)
        except Unavailable as unavailable:
            log.warning("refusal_failed", message_id=message.message_id, error=str(unavailable))
            return
        self._metrics.refused.inc()
        log.warning("message_refused", message_id=message.message_id, reason=error.message, field=error.field)

    def refuse_held(self, held: Held, why: str) -> None:
        """Refuse all messages of a task that cannot be what its id says, and hold it no more."""
        messages = self._held.receipts(held)
        for message in messages:
            self.refuse(message, Rejected(why, field="task_id"))
        self._held.drop(held)

    def delete(self, held: Held) -> None:
        """Hand a task with its end written, and told, to the deleter; its messages are kept alive until then."""
        self._held.move(held, State.DELETING)
        self.deletions.put(held)

    def delete_batch(self, batch: Sequence[Held]) -> list[Held]:
        """Delete the messages of finished tasks; return those tasks that still have one. Raises Unavailable."""
        found = [(held, message) for held in batch for message in self._to_delete(held)]
        for queue in sorted({message.queue for _, message in found}):
            part = [(held, message) for held, message in found if message.queue == queue]
            failed = set(self._queues[queue].delete([message.receipt for _, message in part]))
            for held, message in part:
                if message.receipt not in failed:
                    self._held.acknowledge(held, [message])
        return [held for held in batch if self._held.receipts(held)]

    def _to_delete(self, held: Held) -> list[Message]:
        """Return the messages to delete; those that ask for another run of the task go back instead."""
        messages = self._held.receipts(held)
        again = [message for message in messages if held.asks_again(message)]
        if again:
            self.put_back(again, 0.0 if self._stop.is_set() else RESENT_DELAY_S, reason="resent")
            self._held.acknowledge(held, again)
        return [message for message in messages if message not in again]

    def forget_undeletable(self, held: Held) -> None:
        """Let go of messages whose deletion SQS keeps refusing; a redelivery will be known as a duplicate."""
        log.warning("delete_refused", task_id=held.task.task_id)
        self._held.drop(held)
