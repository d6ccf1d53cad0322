"""What both versions of Stable Diffusion on EKS ask of an engine: its body, with the routing taken out of it.

Their clients put words for the queue agent into ``alwayson_scripts``, where the A1111 API expects scripts. The agent
takes them out before it posts; some of them mean something to the engine, and move to where it looks for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scheduler.domain.task import TaskType
from scheduler.wire.fields import mapping, optional_mapping, optional_name, wrong

TASK_TYPES = {
    "text-to-image": TaskType.TXT2IMG,
    "image-to-image": TaskType.IMG2IMG,
    "extra-single-image": TaskType.EXTRA_SINGLE,
    "extra-batch-images": TaskType.EXTRA_BATCH,
    "extra-batch-image": TaskType.EXTRA_BATCH,  # the documents have the plural, the agent knows the singular only
    "pipeline": TaskType.PIPELINE,
}
A1111_TASK_TYPES = {word: kind for word, kind in TASK_TYPES.items() if kind is not TaskType.PIPELINE}
"""Those of the first version, which knows no ComfyUI."""
ROUTING = frozenset(
    {"task", "id_task", "uid", "sd_model_checkpoint", "image_link", "save_dir", "sd_vae", "override_settings"}
)
"""The words for the queue agent."""
FOR_THE_QUEUE = frozenset({"alwayson_scripts", "s3_output_path", "sdname"})
"""Fields of the body that no engine has, or that are written anew."""
_BETWEEN_LINKS = re.compile(r",(?=https?://|s3://)")


def task_type(value: object, field: str, known: Mapping[str, TaskType] = TASK_TYPES) -> TaskType:
    """Return the type of work that a client's word for it means, one of the `known`. Raises Rejected."""
    if not isinstance(value, str) or value not in known:
        raise wrong(field, value, f"must be one of {', '.join(known)}")
    return known[value]


def request(kind: TaskType, content: Mapping[str, Any], *, field: str) -> tuple[dict[str, Any], str | None]:
    """Return the engine's body and the checkpoint that the routing names. Raises Rejected.

    `field` is what errors call the content's ``alwayson_scripts``. A pipeline is the engine's own as it is.
    """
    if kind is TaskType.PIPELINE:
        return dict(content), None
    body = {name: value for name, value in content.items() if name not in FOR_THE_QUEUE}
    header = optional_mapping(content.get("alwayson_scripts"), field, "of scripts")
    links = _links(header.get("image_link"), f"{field}.image_link")
    if kind is TaskType.EXTRA_SINGLE and links:
        body.setdefault("image", links[0])
    if kind in {TaskType.EXTRA_SINGLE, TaskType.EXTRA_BATCH}:
        return body, None
    if kind is TaskType.IMG2IMG and links:
        body["init_images"] = links
    if settings := _settings(body.get("override_settings"), header, field):
        body["override_settings"] = settings
    if scripts := {name: _script(name, value, field) for name, value in header.items() if name not in ROUTING}:
        body["alwayson_scripts"] = scripts
    return body, optional_name(header.get("sd_model_checkpoint") or None, f"{field}.sd_model_checkpoint")


def _links(value: object, field: str) -> list[str]:
    """Return the addresses of images in one text: early agents took several, with commas between them."""
    if value is None or value == "":
        return []
    if not isinstance(value, str):
        raise wrong(field, value, "must be the address of an image")
    return _BETWEEN_LINKS.split(value)


def _settings(given: object, header: Mapping[str, Any], field: str) -> dict[str, Any]:
    """Return the settings of the body with those of the header over them."""
    vae = optional_name(header.get("sd_vae") or None, f"{field}.sd_vae")
    over = optional_mapping(header.get("override_settings"), f"{field}.override_settings", "of settings")
    beneath = field.replace("alwayson_scripts", "override_settings")
    return optional_mapping(given, beneath, "of settings") | ({"sd_vae": vae} if vae else {}) | over


def _script(name: str, script: Any, field: str) -> Any:
    """Return a script's arguments; the ``image_link`` of a ControlNet unit becomes its ``input_image``."""
    if name.lower() != "controlnet" or not isinstance(script, dict) or not isinstance(script.get("args"), list):
        return script
    units = [_unit(unit, f"{field}.{name}.args.{n}") for n, unit in enumerate(script["args"])]
    return script | {"args": units}


def _unit(unit: Any, field: str) -> Any:
    if not isinstance(unit, dict) or not unit.get("image_link"):
        return unit
    link = unit["image_link"]
    if not isinstance(link, str):
        raise wrong(f"{field}.image_link", link, "must be the address of an image")
    return {name: value for name, value in unit.items() if name != "image_link"} | {"input_image": link}


def content_of(value: object) -> dict[str, Any]:
    """Return the engine's part of a message. Raises Rejected."""
    return mapping(value, "content", "in the engine's own format")
