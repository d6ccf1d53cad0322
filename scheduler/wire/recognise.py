"""Which family a message belongs to, by its shape: the only list of formats."""

from __future__ import annotations

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task
from scheduler.wire import own, predecessor
from scheduler.wire.json_body import parse_object, shorten


def recognise(body: str) -> Task | str:
    """Return the task that a message's body holds, or the id of the record that holds it.

    Raises Rejected naming the field when the body fits no format.
    """
    message = parse_object(body, field="body")
    if own.looks_like(message):
        return own.parse(message)
    if predecessor.looks_like(message):
        return predecessor.parse_reference(message)
    raise Rejected(
        f"body fits no known format: it has {shorten(sorted(message)) if message else 'no keys'}; expected "
        '{"task_id", "task_type", "payload"} or {"taskId", "storage": "dynamodb"}',
        field="body",
    )
