"""Pictures that a payload names by address: put where they stand, in base64, as the engine takes them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from scheduler.domain.ports import Inputs
from scheduler.engines.ration import MOST_BYTES, Rationed

PICTURES = ("mask", "latent_mask", "image")
"""Fields of the payload that hold a picture; `init_images` and `imageList` hold several."""
_PICTURE_KEY = re.compile(r"image|img|mask|photo|frame|gallery", re.IGNORECASE)
"""Names under which extensions take pictures; what stands under others is left as it is."""
_TEXT_KEY = re.compile(r"prompt|text", re.IGNORECASE)
"""Names of texts, even those about pictures."""


def is_address(value: object) -> bool:
    """Tell whether a value names something by address; neither base64 nor a data URI looks like that."""
    return isinstance(value, str) and "://" in value[:16]


def with_pictures(payload: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Return the payload with each picture in the place of its address.

    Raises as `Inputs.image` does, and Rejected when they are more than `MOST_BYTES` together.
    """
    ration = Rationed(inputs, MOST_BYTES)
    body = dict(payload)
    for name in PICTURES:
        if name in body:
            body[name] = _picture(body[name], f"payload.{name}", ration)
    if isinstance(body.get("init_images"), list):
        images = enumerate(body["init_images"])
        body["init_images"] = [_picture(image, f"payload.init_images.{index}", ration) for index, image in images]
    if isinstance(body.get("imageList"), list):
        entries = enumerate(body["imageList"])
        body["imageList"] = [_entry(entry, f"payload.imageList.{index}", ration) for index, entry in entries]
    if isinstance(body.get("alwayson_scripts"), dict):
        body["alwayson_scripts"] = {
            name: _script(script, f"payload.alwayson_scripts.{name}", ration)
            for name, script in body["alwayson_scripts"].items()
        }
    return body


def _entry(entry: Any, field: str, inputs: Rationed) -> Any:
    if not isinstance(entry, dict) or "data" not in entry:
        return entry
    return entry | {"data": _picture(entry["data"], f"{field}.data", inputs)}


def _script(script: Any, field: str, inputs: Rationed) -> Any:
    if not isinstance(script, dict) or "args" not in script:
        return script
    args = script["args"]
    if isinstance(args, list):  # what stands alone may be a prompt, in which there are blanks
        args = [
            _within(one, f"{field}.args.{n}", inputs, is_picture=not (isinstance(one, str) and " " in one))
            for n, one in enumerate(args)
        ]
    else:
        args = _within(args, f"{field}.args", inputs, is_picture=True)
    return script | {"args": args}


def _within(value: Any, field: str, inputs: Rationed, *, is_picture: bool) -> Any:
    """Replace the addresses in an extension's arguments: those under a picture's name, and those that stand alone.

    `is_picture` tells whether a text here may be a picture: the nearest name above it decides, whatever lists are
    between.
    """
    match value:
        case list():
            return [_within(one, f"{field}.{n}", inputs, is_picture=is_picture) for n, one in enumerate(value)]
        case dict():
            return {
                key: _within(one, f"{field}.{key}", inputs, is_picture=_names_picture(key))
                for key, one in value.items()
            }
        case _:
            return _picture(value, field, inputs) if is_picture else value


def _names_picture(key: str) -> bool:
    return _PICTURE_KEY.search(key) is not None and _TEXT_KEY.search(key) is None


def _picture(value: Any, field: str, inputs: Rationed) -> Any:
    return base64.b64encode(inputs.image(value, field=field).data).decode() if is_address(value) else value
