"""The predecessor's message ``{"taskId", "storage": "dynamodb"}`` and its record, which holds the request.

The record is ``{taskId, requestData: '{"api": ..., "payload": {...}}', taskStatus, submitTime}``; its clients poll
until `taskStatus` is ``finished`` and then read `processRes`, a JSON string.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.keys import TASK_ID
from scheduler.domain.task import Format, Task, TaskType
from scheduler.wire.json_body import parse_object, shorten

APIS = {f"/sdapi/v1/{kind}": kind for kind in TaskType if kind is not TaskType.PIPELINE}


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be the predecessor's message."""
    return "taskId" in body


def parse_reference(body: Mapping[str, Any]) -> str:
    """Return the id of the record that holds the request, or raise Rejected naming the field."""
    storage = body.get("storage")
    if storage != "dynamodb":
        raise Rejected(f"storage is {shorten(storage)}; only 'dynamodb' is known", field="storage")
    task_id = body["taskId"]
    if not isinstance(task_id, str) or not TASK_ID.fullmatch(task_id):
        raise Rejected(f"taskId {shorten(task_id)} must be a task's id, such as a UUID", field="taskId")
    return task_id


def parse_record(task_id: str, record: Mapping[str, Any]) -> Task:
    """Return the task that a record holds, or raise Rejected naming the field.

    Its fingerprint is constant: the request lies in the record itself, so that an id cannot mean two requests.
    """
    data = record.get("requestData")
    if not isinstance(data, str):
        raise Rejected(f"requestData is {shorten(data)}; it must be a string of JSON", field="requestData")
    request = parse_object(data, field="requestData")
    api, payload = request.get("api"), request.get("payload")
    if not isinstance(api, str) or (kind := APIS.get("/" + api.strip("/"))) is None:
        raise Rejected(f"api {shorten(api)} must be one of {', '.join(APIS)}", field="requestData.api")
    if not isinstance(payload, dict):
        raise Rejected(f"payload is {shorten(payload)}; it must be an object", field="requestData.payload")
    return Task(
        task_id=task_id,
        task_type=kind,
        payload=payload,
        fingerprint="",
        format=Format.PREDECESSOR,
        by_reference=True,
    )


def finished(addresses: Sequence[str], error: str, *, now: float) -> dict[str, str]:
    """Return the attributes by which the predecessor's clients see the end, good or bad.

    It knew no failure: a task that failed stayed `waiting` and its clients polled for ever. Ours is ``finished``
    with no images and the reason in `processRes.error`. `now` is epoch seconds; `processTime` is local and naive.
    """
    result = {"cnt": len(addresses), "images": list(addresses), "error": error}
    return {
        "taskStatus": "finished",
        "processRes": json.dumps(result),
        "processTime": dt.datetime.fromtimestamp(now).isoformat(),  # noqa: DTZ006 - naive, as its clients expect
    }
