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
from scheduler.wire import claim_check
from scheduler.wire.claim_check import Pointer
from scheduler.wire.json_body import shorten


def read_message(file: IO[bytes]) -> dict[str, Any]:
    """Return the message in `file`. Raises UsageError when it is no JSON object, Rejected for a pointer to one."""
    try:
        message = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from None
    if claim_check.looks_like(message):
        raise not_the_task(claim_check.parse(message, attributes={}, sns_id=None))
    if not isinstance(message, dict):
        raise click.UsageError(f"{file.name} must hold a JSON object")
    return message


def not_the_task(found: str | Pointer) -> Rejected:
    """Return the refusal of a message that only says where its task lies: what it is, and what to do with it."""
    send = "send this to the queue as it is (aws sqs send-message)"
    if isinstance(found, Pointer):
        said = f"this points to the body in {found.address} and is no task itself: submit what lies there, or {send}"
    else:
        said = f"this is a reference to the record of task {shorten(found)} and holds no task: {send}"
    return Rejected(said, field="body")


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
