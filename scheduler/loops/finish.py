"""The finish loops: decoding beside the engine, storing beside the decoding, deleting in batches."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue

import structlog

from scheduler.domain.errors import BadResult, SchedulerError, Unavailable
from scheduler.domain.ports import Output
from scheduler.domain.retry import backoff_s
from scheduler.domain.surprises import Surprises
from scheduler.held import Held, HeldTasks, State
from scheduler.held_messages import DELETE_ATTEMPTS, HeldMessages
from scheduler.loops.byte_budget import ByteBudget
from scheduler.loops.render import Outcome
from scheduler.outages import FIRST_PAUSE_S, MAX_PAUSE_S, Outages
from scheduler.stop import StopSignal
from scheduler.task_processor import TaskProcessor
from scheduler.wire.json_body import shorten

log = structlog.get_logger()
DELETE_BATCH = 10
LINGER_S = 0.25
"""How long a delete waits for others to share its call."""
DELETING = "(deleting)"
"""What the trouble goes by, beside those of tasks; no task has such an id."""
TROUBLED_DELETES = 3
"""Calls that fail in a row before no more work is taken, for its messages could not be deleted either."""

Finished = tuple[Held, Output | SchedulerError]


class DecodeLoop:
    """Reads and verifies one engine's answers, one at a time, in order."""

    def __init__(
        self,
        outcomes: SimpleQueue[tuple[Held, Outcome] | None],
        finished: SimpleQueue[Finished | None],
        held: HeldTasks,
    ) -> None:
        self._outcomes = outcomes
        self._finished = finished
        self._held = held

    def run(self) -> None:
        """Decode until the engine's loop has ended and all is done."""
        while (item := self._outcomes.get()) is not None:
            held, outcome = item
            result = self._decode(outcome)
            self._held.move(held, State.FINISHING)
            self._finished.put((held, result))
            del item, outcome, result  # the next wait must not keep a picture in memory

    def _decode(self, outcome: Outcome) -> Output | SchedulerError:
        if isinstance(outcome, SchedulerError):
            return outcome
        try:
            return outcome.output()
        except SchedulerError as error:
            return error
        except Exception as error:
            log.exception("answer_unreadable")
            return BadResult(f"the engine's answer could not be read: {shorten(error, 300)}")


class StoreLoop:
    """Stores results and writes ends; several run beside each other, for S3 is far away."""

    def __init__(self, finished: SimpleQueue[Finished | None], processor: TaskProcessor, budget: ByteBudget) -> None:
        self._finished = finished
        self._processor = processor
        self._budget = budget
        self._surprises = Surprises()

    def run(self) -> None:
        """Store until told that nothing more comes."""
        while (item := self._finished.get()) is not None:
            held, result = item
            self._store(held, result)
            self._budget.release(held)
            del item, held, result

    def _store(self, held: Held, result: Output | SchedulerError) -> None:
        try:
            if isinstance(result, SchedulerError):
                self._processor.end(held, result)
            else:
                self._processor.finish(held, result)
        except Exception:
            if self._surprises.add(held.task.task_id):
                raise
            log.exception("store_failed", task_id=held.task.task_id)
            self._processor.surprised(held)
        else:
            self._surprises.none()


class DeleteLoop:
    """Deletes the messages of finished tasks, ten to a call."""

    def __init__(self, messages: HeldMessages, outages: Outages, stop: StopSignal) -> None:
        self._messages = messages
        self._outages = outages
        self._stop = stop
        self._failures = 0

    def run(self) -> None:
        """Delete until told that nothing more comes."""
        ended = False
        left: list[Held] = []
        while not ended or left:
            batch, ended = (left, ended) if left else self._gather()
            left = self._delete(batch) if batch else []
            if left and self._stop.is_set() and self._stop.left_s() <= 0:
                log.error("messages_left", tasks=[held.task.task_id for held in left])
                return

    def _gather(self) -> tuple[list[Held], bool]:
        """Return up to ten tasks, waiting for the first and shortly for the others, and whether that was the end."""
        batch: list[Held] = []
        until_s = None
        while len(batch) < DELETE_BATCH:
            try:
                timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
                held = self._messages.deletions.get(timeout=timeout_s)
            except Empty:
                break
            if held is None:
                return batch, True
            batch.append(held)
            until_s = until_s or time.monotonic() + LINGER_S
        return batch, False

    def _delete(self, batch: list[Held]) -> list[Held]:
        """Delete once; return what has to be tried again."""
        try:
            left = self._messages.delete_batch(batch)
        except Unavailable as error:
            if self._failures == 0:
                log.warning("delete_failed", error=str(error))
            self._failures += 1
            if self._failures >= TROUBLED_DELETES:
                self._outages.set_trouble(DELETING, str(error))
            self._stop.pause(min(MAX_PAUSE_S, backoff_s(self._failures + 1, FIRST_PAUSE_S)))
            return batch
        self._failures = 0
        self._outages.set_trouble(DELETING, None)
        again = []
        for held in left:
            held.delete_attempts += 1
            if held.delete_attempts >= DELETE_ATTEMPTS:
                self._messages.forget_undeletable(held)
            else:
                again.append(held)
        if again:
            self._stop.pause(1.0)
        return again
