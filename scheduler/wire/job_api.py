"""A request to the asynchronous job API: ``{"task_id", "api_path", "request_body"}``, and its end in the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.domain.task import Format, Task, TaskType, fingerprint
from scheduler.wire.fields import mapping, task_id, wrong

PATHS = ("/api/v1/camera-angle/jobs", "/api/v1/qwen-image-edit/jobs")
"""The paths that a task may name; any other is refused, whatever the engine would do with it."""


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be a request to the job API."""
    return "api_path" in body or "request_body" in body


def parse(body: Mapping[str, Any]) -> Task:
    """Return the task, or raise Rejected naming the first field that is wrong."""
    path = body.get("api_path")
    if not isinstance(path, str) or path not in PATHS:
        raise wrong("api_path", path, f"must be one of {', '.join(PATHS)}")
    request = mapping(body.get("request_body"), "request_body", "as the API takes it")
    return Task(
        task_id=task_id(body.get("task_id"), "task_id"),
        task_type=TaskType.PIPELINE,
        payload=request,
        fingerprint=fingerprint({"api_path": path, "request_body": request}),
        format=Format.JOB_API,
        api_path=path,
    )


def ended(status: str) -> dict[str, str]:
    """Return the attributes, beside ours, by which the job API's clients see the end of a task.

    `status` is the record's. What a failed task has anyway, a cancelled one gets: an `error_message`.
    """
    return {"error_message": "cancelled"} if status == "cancelled" else {}
