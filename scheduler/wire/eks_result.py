"""What the clients of Stable Diffusion on EKS are told of an end: a message on SNS, and an object beside the pictures.

Both are the same for its two versions of requests. Tasks of other formats have the same message, and no object.
"""

from __future__ import annotations

import json
from typing import Any

from scheduler.domain.keys import output_key
from scheduler.domain.task import Failure, Result, Task, TaskType

_EXTRAS = frozenset({TaskType.EXTRA_SINGLE, TaskType.EXTRA_BATCH})
_INPUTS = ("init_images", "mask", "latent_mask")
"""Fields that the engine itself answers with null."""


def announcement(task: Task, end: Result | Failure, *, run_no: int, bucket: str) -> dict[str, Any]:
    """Return the message for the topic of results; addresses are S3 URIs, never those of a CDN.

    A task of another format has no object that `output_url` could name: there it is null.
    """
    return {
        "id": task.task_id,
        "result": isinstance(end, Result),
        "image_url": end.addresses(f"s3://{bucket}/{{}}".format) if isinstance(end, Result) else [],
        "output_url": f"s3://{bucket}/{output_key(task, run_no=run_no)}" if task.format.is_eks else None,
        "context": task.context,
    }


def output(task: Task, end: Result | Failure) -> dict[str, Any]:
    """Return the object that is stored under the task's `output_key`, as ``application/json``.

    It has the shape of the runtime's: a pipeline's is a code alone. In that of A1111 the request stands for the echo
    of the engine, which differs from it by defaults.
    """
    if task.task_type is TaskType.PIPELINE:
        return {"code": 200 if isinstance(end, Result) else 500}
    return {"images": [""], "parameters": _parameters(task, end), "info": ""}


def _parameters(task: Task, end: Result | Failure) -> dict[str, Any]:
    if isinstance(end, Failure):
        return {"id_task": task.task_id, "status": 0, "error_msg": end.message, "reason": _reason(end.engine)}
    if task.task_type in _EXTRAS:
        return {"html_info": "", "id_task": task.task_id, "error_msg": ""}
    echo = dict(task.payload) | {name: None for name in _INPUTS if name in task.payload}
    seeds = ",".join(str(image.seed) for image in end.images if image.seed is not None)
    return echo | {"id_task": task.task_id, "image_seed": seeds, "error_msg": ""}


def _reason(engine: str | None) -> Any:
    """Return the engine's answer: as JSON where it is JSON, else its words, null where it said nothing."""
    if not engine:
        return None
    try:
        return json.loads(engine)
    except (ValueError, RecursionError):
        return engine
