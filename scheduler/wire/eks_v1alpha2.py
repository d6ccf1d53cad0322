"""Version v1alpha2 of Stable Diffusion on EKS: ``{"metadata": {...}, "content": {...}}``; v1alpha1 arrives so, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.domain.task import Format, Task, fingerprint
from scheduler.wire import eks_content
from scheduler.wire.fields import mapping, optional_name, optional_prefix, task_id


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be a message of this version."""
    return "metadata" in body or "content" in body


def parse(body: Mapping[str, Any]) -> Task:
    """Return the task, or raise Rejected naming the first field that is wrong."""
    metadata = mapping(body.get("metadata"), "metadata", "with id, tasktype, runtime, prefix and context")
    kind = eks_content.task_type(metadata.get("tasktype"), "metadata.tasktype")
    content = eks_content.content_of(body.get("content"))
    payload, checkpoint = eks_content.request(kind, content, field="content.alwayson_scripts")
    described = {name: value for name, value in metadata.items() if name != "id"}
    return Task(
        task_id=task_id(metadata.get("id"), "metadata.id", may_be_number=True),
        task_type=kind,
        payload=payload,
        fingerprint=fingerprint({"metadata": described, "content": content}),
        format=Format.EKS_V1ALPHA2,
        runtime=optional_name(metadata.get("runtime"), "metadata.runtime"),
        prefix=optional_prefix(metadata.get("prefix"), "metadata.prefix"),
        checkpoint=checkpoint,
        context=metadata.get("context", {}),
    )
