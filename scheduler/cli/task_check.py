"""What can be said about a task before anything is sent: the worker's own checks, and what is likely a slip; pure."""

from __future__ import annotations

import difflib

from scheduler.domain.ports import Inputs
from scheduler.domain.routing import Routes
from scheduler.domain.task import Task, TaskType
from scheduler.engines.sdwebui_inputs import with_pictures
from scheduler.engines.sdwebui_payload import draft
from scheduler.local.standin import forms
from scheduler.wire.json_body import shorten

KNOWN = {
    TaskType.TXT2IMG: forms.TXT2IMG,
    TaskType.IMG2IMG: forms.IMG2IMG,
    TaskType.EXTRA_SINGLE: forms.EXTRA_SINGLE,
    TaskType.EXTRA_BATCH: forms.EXTRA_BATCH,
}
"""The fields of A1111 1.10; the engine itself ignores others without a word."""


def check(task: Task, *, routes: Routes, inputs: Inputs, max_pixels: int) -> list[str]:
    """Return warnings. Raises Rejected for what a worker of this configuration would refuse.

    `inputs` need not fetch anything.
    """
    if routes.runtime(task) is None:
        what = f"the runtime {shorten(task.runtime)}" if task.runtime else f"the task type {task.task_type}"
        served = ", ".join(routes.runtimes)
        return [f"no worker of this configuration runs {what}, so the task may wait for ever; served are {served}"]
    if task.task_type is TaskType.PIPELINE:
        return []
    payload = with_pictures(task.payload, inputs)
    checked = draft(task.task_type, payload, seed_key="", max_pixels=max_pixels)
    return [*unknown_fields(task), *checked.warnings]


def unknown_fields(task: Task) -> list[str]:
    """Return a warning for each field of the payload that the engine would pass over."""
    known = [field.name for field in KNOWN[task.task_type]]
    warnings = []
    for name in task.payload:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"payload.{name[:80]} is no field of {task.task_type}: engines ignore it{hint}")
    return warnings
