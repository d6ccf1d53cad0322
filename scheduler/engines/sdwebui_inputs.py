"""Pictures that a payload names by address: put where they stand, in base64, as the engine takes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from scheduler.domain.ports import Inputs

PICTURES = ("mask", "latent_mask", "image")
"""Fields of the payload that hold a picture; `init_images` and `imageList` hold several."""
_PICTURE_KEY = re.compile(r"image|img|mask|photo|frame", re.IGNORECASE)
"""Names under which extensions take pictures; what stands under others, prompts above all, is left as it is."""


def is_address(value: object) -> bool:
    """Tell whether a value names something by address; neither base64 nor a data URI looks like that."""
    return isinstance(value, str) and "://" in value[:16]


def with_pictures(payload: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Return the payload with each picture in the place of its address. Raises as `Inputs.image` does."""
    body = dict(payload)
    for name in PICTURES:
        if name in body:
            body[name] = _picture(body[name], f"payload.{name}", inputs)
    if isinstance(body.get("init_images"), list):
        images = enumerate(body["init_images"])
        body["init_images"] = [_picture(image, f"payload.init_images.{index}", inputs) for index, image in images]
    if isinstance(body.get("imageList"), list):
        entries = enumerate(body["imageList"])
        body["imageList"] = [_entry(entry, f"payload.imageList.{index}", inputs) for index, entry in entries]
    if isinstance(body.get("alwayson_scripts"), dict):
        body["alwayson_scripts"] = {
            name: _script(script, f"payload.alwayson_scripts.{name}", inputs)
            for name, script in body["alwayson_scripts"].items()
        }
    return body


def _entry(entry: Any, field: str, inputs: Inputs) -> Any:
    if not isinstance(entry, dict) or "data" not in entry:
        return entry
    return entry | {"data": _picture(entry["data"], f"{field}.data", inputs)}


def _script(script: Any, field: str, inputs: Inputs) -> Any:
    if not isinstance(script, dict) or "args" not in script:
        return script
    return script | {"args": _within(script["args"], f"{field}.args", inputs)}


def _within(value: Any, field: str, inputs: Inputs) -> Any:
    """Replace the addresses in an extension's arguments: those that stand alone, and those under a picture's name."""
    match value:
        case list():
            return [_within(one, f"{field}.{index}", inputs) for index, one in enumerate(value)]
        case dict():
            return {
                key: _within(one, f"{field}.{key}", inputs)
                if not isinstance(one, str) or _PICTURE_KEY.search(key)
                else one
                for key, one in value.items()
            }
        case _:
            return _picture(value, field, inputs)


def _picture(value: Any, field: str, inputs: Inputs) -> Any:
    return base64.b64encode(inputs.image(value, field=field).data).decode() if is_address(value) else value
