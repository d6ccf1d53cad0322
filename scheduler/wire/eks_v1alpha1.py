"""Version v1alpha1 of Stable Diffusion on EKS: an A1111 body with its routing inside ``alwayson_scripts``.

In the form of the on-demand KEDA variant ``sdname`` names the runtime beside it, and ``save_dir`` may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.domain.task import Format, Task, fingerprint
from scheduler.wire import eks_content
from scheduler.wire.fields import mapping, optional_name, optional_prefix, task_id

RUNTIME = "legacy"
"""What the second version calls the runtime of whoever still speaks the first."""
HEADER = "alwayson_scripts"


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be a message of this version."""
    return HEADER in body or "sdname" in body


def parse(body: Mapping[str, Any]) -> Task:
    """Return the task, or raise Rejected naming the first field that is wrong."""
    header = mapping(body.get(HEADER), HEADER, "with task, id_task and sd_model_checkpoint")
    kind = eks_content.task_type(header.get("task"), f"{HEADER}.task", eks_content.A1111_TASK_TYPES)
    payload, checkpoint = eks_content.request(kind, body, field=HEADER)
    request = {name: value for name, value in body.items() if name not in {HEADER, "s3_output_path"}}
    return Task(
        task_id=task_id(header.get("id_task"), f"{HEADER}.id_task", may_be_number=True),
        task_type=kind,
        payload=payload,
        fingerprint=fingerprint(request | {HEADER: {name: header[name] for name in header if name != "id_task"}}),
        format=Format.EKS_V1ALPHA1,
        runtime=optional_name(body.get("sdname"), "sdname") or RUNTIME,
        prefix=optional_prefix(header.get("save_dir"), f"{HEADER}.save_dir"),
        checkpoint=checkpoint,
        context={},
    )
