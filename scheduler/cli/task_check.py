"""What can be said about a task before anything is sent: the worker's own checks, and what is likely a slip; pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, cast

from scheduler.config_syntax import EngineLine
from scheduler.domain.errors import Rejected
from scheduler.domain.ports import Inputs
from scheduler.domain.routing import kind_for
from scheduler.domain.task import Task, TaskType
from scheduler.engines import comfyui_graph
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.engines.comfyui_pictures import Pictures
from scheduler.engines.job_api_request import addresses, checked_path
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


class _NoEngine:
    """Stands for a ComfyUI that is asked nothing: it takes every picture, and tells of no class."""

    def node_info(self, class_type: str) -> Mapping[str, Any]:
        """Return nothing: which inputs of custom classes take pictures only the engine knows."""
        _ = class_type
        return {}

    def upload(self, name: str, data: bytes, media_type: str) -> str:
        """Return the name that was given."""
        _ = data, media_type
        return name


def check(task: Task, *, served: Mapping[str, EngineLine], inputs: Inputs, max_pixels: int) -> list[str]:
    """Return warnings. Raises Rejected for what a worker would refuse without having asked its engine.

    `served` are the runtimes of such a worker; `inputs` need not fetch anything.
    """
    wanted = kind_for(task)
    if task.runtime is None:
        kind = next((line.kind for line in served.values() if line.kind == wanted), None)
    else:
        kind = served[task.runtime].kind if task.runtime in served else None
    if kind is None:
        what = f"the runtime {shorten(task.runtime)}" if task.runtime else f"the task type {task.task_type}"
        return [
            f"no worker of this configuration runs {what}, so the task may wait for ever; served are {', '.join(served)}"
        ]
    if kind != wanted:
        raise Rejected(f"the runtime {shorten(task.runtime)} is {kind}, which runs no {task.job_type}", field="runtime")
    return _CHECKS[kind](task, inputs, max_pixels)


def _webui(task: Task, inputs: Inputs, max_pixels: int) -> list[str]:
    payload = with_pictures(task.payload, inputs)
    checked = draft(task.task_type, payload, seed_key="", max_pixels=max_pixels)
    return [*unknown_fields(task), *checked.warnings]


def _comfyui(task: Task, inputs: Inputs, max_pixels: int) -> list[str]:
    request = comfyui_graph.read(task.payload)
    comfyui_graph.bounded_pixels(request.graph, at=request.at, max_pixels=max_pixels)
    Pictures(cast(ComfyClient, _NoEngine()), inputs, max_pixels=max_pixels).upload(request.graph, at=request.at)
    return []


def _job_api(task: Task, inputs: Inputs, _max_pixels: int) -> list[str]:
    checked_path(task.api_path)
    for name, address in addresses(task.payload).items():
        inputs.image(address, field=name)
    return []


_CHECKS: dict[str, Callable[[Task, Inputs, int], list[str]]] = {
    "sdwebui": _webui,
    "comfyui": _comfyui,
    "job_api": _job_api,
}


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
