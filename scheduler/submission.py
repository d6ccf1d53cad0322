"""Submitting a task: its record first, so that it can be asked for at once, then its message."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scheduler.domain.claiming import FINAL, REUSABLE
from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task
from scheduler.wire.recognise import recognise

MAX_MESSAGE_BYTES = 1024 * 1024
"""What SQS takes in one message."""


class Records(Protocol):
    """What submitting needs of the task store."""

    def create(self, task: Task, *, job_type: str) -> bool:
        """Write the pending record; False when the id is taken."""

    def read(self, task_ids: list[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the records that exist among the ids."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """`status` is the record's; `was_sent` is False when the task already had its end and nothing was sent."""

    task_id: str
    status: str
    was_sent: bool


def submit(message: Mapping[str, Any], *, records: Records, send: Callable[[str], None]) -> Submitted:
    """Record and send one task, in any format whose message holds the request.

    The same request under the same id is sent again only while it has no end, so that a caller who does not know
    whether the first call worked may simply call again; where ids come again, an end is no reason not to. Raises
    Rejected for a bad request or an id that belongs to another, Unavailable when AWS does not answer.
    """
    body = json.dumps(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise Rejected(f"the task is {len(body)} bytes; SQS takes {MAX_MESSAGE_BYTES}", field="payload")
    task = recognise(body)
    if not isinstance(task, Task):
        raise Rejected("a message to submit must hold the task, not say where it lies", field="body")
    status = "pending"
    if not records.create(task, job_type=task.job_type):
        record = records.read([task.task_id]).get(task.task_id, {})
        if task.format.is_eks and record.get("status") in FINAL and record.get("format") in REUSABLE:
            send(body)
            return Submitted(task.task_id, "pending", was_sent=True)
        if record.get("fingerprint", task.fingerprint) != task.fingerprint:
            raise Rejected(f"task_id {task.task_id} already belongs to another request", field="task_id")
        status = str(record.get("status", "pending"))
        if status in {"completed", "cancelled"}:
            return Submitted(task.task_id, status, was_sent=False)
    send(body)
    return Submitted(task.task_id, status, was_sent=True)
