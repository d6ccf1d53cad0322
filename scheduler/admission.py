"""From messages to held tasks: recognised, looked up, joined to what is held, put back, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog

from scheduler.domain.errors import Rejected, Transient, Unavailable
from scheduler.domain.ports import Clock, Inputs, TaskStore
from scheduler.domain.retry import FIRST_LACKING_S, MOST_DELIVERIES, backoff_s
from scheduler.domain.routing import Routes
from scheduler.domain.surprises import Surprises
from scheduler.domain.task import Message, Task
from scheduler.held import HeldTasks
from scheduler.held_messages import HeldMessages
from scheduler.stop import StopSignal
from scheduler.task_processor import MISSING_RECORD_S, TaskProcessor
from scheduler.wire import predecessor
from scheduler.wire.claim_check import Pointer
from scheduler.wire.recognise import recognise

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bodies may take in memory."""

    body_bytes: int
    """One that its message only points to."""
    held_bytes: int
    """All of those held together; one that is too large alone may be held alone."""


class Admission:
    """Decides what each message that was received becomes. Safe for threads."""

    def __init__(
        self,
        *,
        processor: TaskProcessor,
        messages: HeldMessages,
        held: HeldTasks,
        tasks: TaskStore,
        routes: Routes,
        inputs: Inputs,
        clock: Clock,
        stop: StopSignal,
        limits: Limits,
        is_up: Callable[[Task], bool],
    ) -> None:
        """`is_up` tells whether a task's engine may start it in a while."""
        self._processor = processor
        self._messages = messages
        self._held = held
        self._tasks = tasks
        self._routes = routes
        self._inputs = inputs
        self._clock = clock
        self._stop = stop
        self._limits = limits
        self._is_up = is_up
        self._surprises = Surprises()

    def admit(self, messages: Sequence[Message]) -> None:
        """Hold the tasks that the messages bring, join duplicates, refuse what cannot become a task.

        Raises Unavailable when the records of references cannot be read; those messages were put back.
        """
        references: list[tuple[str, Message]] = []
        refused: list[tuple[Message, Rejected]] = []
        if self._stop.is_set():
            self._messages.put_back(messages, 0.0, reason="stop")
            return
        for message in messages:
            with self._admitting(message, refused):
                found, body_bytes = self._recognise(message)
                if isinstance(found, Task):
                    self._take_in(found, message, body_bytes)
                elif not self._held.join(found, message):
                    references.append((found, message))
        try:
            if references:
                self._admit_references(references, refused)
        finally:
            for message, why in refused:  # last, for what is held already is kept hidden meanwhile
                self._messages.refuse(message, why)

    def _recognise(self, message: Message) -> tuple[Task | str, int]:
        """Return what a body means and its size, fetched first where the message only says where it lies."""
        found = recognise(message.body)
        if not isinstance(found, Pointer):
            return found, len(message.body)
        data = self._inputs.read(found.address, field="body", max_bytes=self._limits.body_bytes)
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise Rejected(f"{found.address} holds no text: {error}", field="body") from error
        fetched = recognise(text, fetched_by=found)
        if isinstance(fetched, Pointer):
            raise TypeError("a pointer was recognised behind a pointer")
        return fetched, len(data)

    @contextmanager
    def _admitting(self, message: Message, refused: list[tuple[Message, Rejected]]) -> Iterator[None]:
        """Stand around the admission of one message: whatever is wrong with it must not hold up those beside it."""
        try:
            yield
        except Rejected as error:
            refused.append((message, error))
        except (Transient, Unavailable) as error:
            log.warning("body_not_fetched", message_id=message.message_id, error=str(error))
            if isinstance(error, Transient) and message.receive_count >= MOST_DELIVERIES:
                refused.append((message, Rejected(f"{error} ({message.receive_count} times)", field="body")))
            else:
                self._messages.put_back([message], backoff_s(message.receive_count), reason="body")
        except Exception as error:
            if self._surprises.add(message.message_id):
                raise
            error.add_note(f"while message {message.message_id} was admitted")
            log.exception("cycle_failed")
            self._messages.put_back([message], backoff_s(message.receive_count), reason="surprise")
        else:
            self._surprises.none()

    def _admit_references(
        self, references: Sequence[tuple[str, Message]], refused: list[tuple[Message, Rejected]]
    ) -> None:
        try:
            records = self._tasks.read([task_id for task_id, _ in references])
        except Unavailable:
            for _, message in references:
                self._messages.put_back([message], backoff_s(message.receive_count), reason="aws")
            raise
        for task_id, message in references:
            record = records.get(task_id)
            with self._admitting(message, refused):
                if record is None:
                    self._missing(task_id, message)
                else:
                    self._take_in(self._parse(task_id, record), message, len(message.body))

    def _parse(self, task_id: str, record: Mapping[str, Any]) -> Task:
        try:
            return predecessor.parse_record(task_id, record)
        except Rejected as error:
            if "requestData" in record or "taskStatus" in record:  # else it is another format's, and none of ours
                self._processor.close_bad_record(task_id, record, error)
            raise

    def _take_in(self, task: Task, message: Message, body_bytes: int) -> None:
        kind = task.task_type.value
        if self._routes.runtime(task) is None and message.receive_count < MOST_DELIVERIES:
            log.info("task_lacks_runtime", task_id=task.task_id, runtime=task.runtime, task_type=kind)
        elif not self._is_up(task):
            if message.receive_count >= MOST_DELIVERIES:
                raise Rejected(f"its engine was down in all of {message.receive_count} deliveries", field="runtime")
            log.info("task_lacks_engine", task_id=task.task_id, runtime=task.runtime, task_type=kind)
        elif self._held.all() and self._held.body_bytes() + body_bytes > self._limits.held_bytes:
            self._messages.put_back([message], backoff_s(message.receive_count), reason="memory")
            return
        else:
            self._hold(task, message, body_bytes)
            return
        self._messages.put_back([message], backoff_s(message.receive_count, FIRST_LACKING_S), reason="runtime")

    def _hold(self, task: Task, message: Message, body_bytes: int) -> None:
        try:
            self._held.take_in(
                task, replace(message, sns_id=task.sns_id), self._routes.needs(task), body_bytes=body_bytes
            )
        except Rejected as error:
            if self._held.is_settled(task):
                raise
            # Which of the two requests has the id, its record will tell when the one in hand is claimed.
            self._messages.put_back([message], backoff_s(message.receive_count), reason=error.kind)

    def _missing(self, task_id: str, message: Message) -> None:
        if self._clock.now() - message.sent_at_s > MISSING_RECORD_S:
            raise Rejected(f"there is no record of task {task_id} in the table", field="taskId")
        self._messages.put_back([message], backoff_s(message.receive_count), reason="no-record")
