"""Our own message: the whole request in the body."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scheduler.domain.destinations import Forbidden, read_web
from scheduler.domain.errors import Rejected
from scheduler.domain.keys import TASK_ID
from scheduler.domain.task import Format, Task, TaskType, fingerprint
from scheduler.wire import job_api
from scheduler.wire.fields import ID_RULE
from scheduler.wire.json_body import shorten

Name = Annotated[str, Field(min_length=1, max_length=300)]


class OwnMessage(BaseModel):
    """``{"task_id", "task_type", "payload", "runtime"?, "prefix"?, "checkpoint"?, "context"?,
    "webhook"?, "preview"?}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task_id: str
    task_type: Annotated[TaskType, Field(strict=False)]
    payload: dict[str, Any]
    runtime: Name | None = None
    prefix: Annotated[str, Field(max_length=1000)] | None = None
    checkpoint: Name | None = None
    context: Any = None
    webhook: str | None = None
    preview: bool = False


FIELDS = tuple(OwnMessage.model_fields)
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,80}")


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be our own message."""
    return "task_type" in body or ("task_id" in body and not job_api.looks_like(body))


def parse(body: Mapping[str, Any]) -> Task:
    """Return the task, or raise Rejected naming the first field that is wrong."""
    try:
        message = OwnMessage.model_validate(body)
    except ValidationError as error:
        raise _explain(error) from None
    if not TASK_ID.fullmatch(message.task_id):
        raise Rejected(f"task_id {shorten(message.task_id)} {ID_RULE}", field="task_id")
    if message.webhook is not None:
        _require_address(message.webhook)
    request = {name: body[name] for name in FIELDS if name != "task_id" and body.get(name) is not None}
    return Task(
        task_id=message.task_id,
        task_type=message.task_type,
        payload=message.payload,
        fingerprint=fingerprint(request),
        format=Format.OWN,
        runtime=message.runtime,
        prefix=message.prefix,
        checkpoint=message.checkpoint,
        context=message.context,
        webhook=message.webhook,
        preview=message.preview,
    )


def _require_address(webhook: str) -> None:
    """Refuse what is no address; whether it may be gone to is known only where it is gone to."""
    try:
        read_web(webhook)
    except Forbidden as error:
        raise Rejected(f"webhook: {error}", field="webhook") from error


def _explain(error: ValidationError) -> Rejected:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if not _PLAIN.fullmatch(field):  # a key of the client's making: it may be empty, or a megabyte
        field = shorten(field)
    match first["type"]:
        case "missing":
            said = f"{field} is missing; a message needs task_id, task_type and payload"
        case "extra_forbidden":
            near = difflib.get_close_matches(field, FIELDS, n=1)
            said = f"{field} is no field of a message" + (f"; did you mean {near[0]}?" if near else "")
        case "enum":
            said = f"task_type {shorten(first['input'])} must be one of {', '.join(TaskType)}"
        case "dict_type":
            said = f"{field} is {shorten(first['input'])}: it must be a JSON object"
        case _:
            said = f"{field} is {shorten(first['input'])}: {first['msg'].lower()}"
    return Rejected(said, field=field)
