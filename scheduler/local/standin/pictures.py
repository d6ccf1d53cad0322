"""Pictures as the API carries them: base64 in, base64 out, resized; it never fetches anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scheduler.local.standin.refusals import EngineError, refused

URL_SCHEMES = ("http://", "https://")
FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


def decode(encoded: Any) -> Image.Image:
    """Return the picture in a base64 string or a data URI. Raises EngineError: a client's fault behind a 500.

    Every URL is refused as a local one is, for the stand-in reaches nothing beyond itself.
    """
    try:
        if encoded.startswith(URL_SCHEMES):
            raise refused(500, "Request to local resource not allowed")
        if encoded.startswith("data:image/"):
            encoded = encoded.split(";")[1].split(",")[1]
        picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
        return picture.convert("RGB")
    except (ValueError, OSError, AttributeError, IndexError, SyntaxError, Image.DecompressionBombError) as error:
        raise refused(500, "Invalid encoded image") from error


def encode(picture: Image.Image, infotext: str, samples_format: str) -> str:
    """Return the picture as bare base64 in the server's chosen format; a PNG carries `infotext`."""
    form = FORMATS.get(samples_format.lower())
    if form is None:
        raise refused(500, "Invalid image format")
    out = io.BytesIO()
    if form == "PNG":
        chunks = PngInfo()
        if infotext:
            chunks.add_text("parameters", infotext)
        picture.save(out, form, pnginfo=chunks, compress_level=1)
    else:
        picture.save(out, form, quality=80)
    return base64.b64encode(out.getvalue()).decode("ascii")


def cut_in_half(encoded: str) -> str:
    """Return the first half of an encoded picture: its header promises more than there is."""
    data = base64.b64decode(encoded)
    return base64.b64encode(data[: len(data) // 2]).decode("ascii")


def contact_grid(pictures: list[Image.Image]) -> Image.Image:
    """Return all pictures side by side, as near to a square as they go."""
    width, height = pictures[0].size
    rows = max(1, int(len(pictures) ** 0.5))
    columns = -(-len(pictures) // rows)
    grid = Image.new("RGB", (columns * width, rows * height))
    for index, picture in enumerate(pictures):
        grid.paste(picture, (index % columns * width, index // columns * height))
    return grid


def upscaled(picture: Image.Image, wish: Mapping[str, Any]) -> Image.Image:
    """Return the picture as the extras routes would: untouched when no upscaler is named. Raises EngineError."""
    method = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}.get(wish["upscaler_1"])
    if method is None:
        if wish["upscaler_1"] == "None":
            return picture
        raise EngineError("AssertionError", f"could not find upscaler named {wish['upscaler_1']}")
    to_size = wish["resize_mode"] == 1
    target = (wish["upscaling_resize_w"], wish["upscaling_resize_h"])
    scale = wish["upscaling_resize"]
    if to_size:
        scale = max(target[0] / picture.width, target[1] / picture.height)
    size = (max(8, int(picture.width * scale) // 8 * 8), max(8, int(picture.height * scale) // 8 * 8))
    large = picture.resize(size, method)
    if not (to_size and wish["upscaling_crop"]):
        return large
    cropped = Image.new("RGB", target)
    cropped.paste(large, (target[0] // 2 - large.width // 2, target[1] // 2 - large.height // 2))
    return cropped
