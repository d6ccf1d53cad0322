"""A task's message out of a file, or out of the options of `task submit`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import IO, Any

import click

from scheduler.domain.errors import Rejected
from scheduler.domain.task import TaskType
from scheduler.pictures import BadImage, inspect
from scheduler.submission import MAX_MESSAGE_BYTES


def read_message(file: IO[bytes]) -> dict[str, Any]:
    """Return the message in `file`. Raises UsageError when it is no JSON object."""
    try:
        message = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise click.UsageError(f"{file.name} must hold a JSON object")
    return message


def build_message(
    prompt: str, *, image: Path | None, checkpoint: str | None, settings: tuple[str, ...], max_pixels: int
) -> dict[str, Any]:
    """Return a message without an id. Raises UsageError for a bad setting, Rejected for a bad picture."""
    payload: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        payload["init_images"] = [_encoded(image, max_pixels=max_pixels)]
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--set {setting!r} must be KEY=VALUE")
        if key in payload:
            raise click.UsageError(f"--set {setting!r}: {key} is given already")
        try:
            payload[key] = json.loads(text)
        except (ValueError, RecursionError):
            payload[key] = text
    kind = TaskType.IMG2IMG if image is not None else TaskType.TXT2IMG
    message: dict[str, Any] = {"task_type": kind.value, "payload": payload}
    return message | ({"checkpoint": checkpoint} if checkpoint else {})


def _encoded(file: Path, *, max_pixels: int) -> str:
    """Return the picture in `file` as base64."""
    field = "payload.init_images.0"
    try:
        data = file.read_bytes()
        inspect(data, max_pixels=max_pixels, thorough=True)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from error
    except BadImage as error:
        raise Rejected(f"{file}: {error}", field=field) from error
    encoded = base64.b64encode(data).decode()
    if len(encoded) > MAX_MESSAGE_BYTES:
        said = f"{file} takes {len(encoded)} bytes in the message, where SQS takes {MAX_MESSAGE_BYTES} in all"
        raise Rejected(f"{said}: scale it down, or save it as JPEG or WebP", field=field)
    return encoded
