"""A task as the job API takes it: which paths it may name, which pictures it points at, the body; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task
from scheduler.engines.seeds import pinned_seed
from scheduler.wire.job_api import PATHS
from scheduler.wire.json_body import shorten

SCHEMES = ("https://", "s3://")
_ADDRESS = re.compile(r"image[0-9]*_url")


def checked_path(api_path: str | None) -> str:
    """Return the path to post to. Raises Rejected for any but the listed ones, however it is spelt."""
    if api_path not in PATHS:
        said = "is missing" if api_path is None else f"is {shorten(api_path)}"
        raise Rejected(f"api_path {said}: it must be one of {', '.join(PATHS)}", field="api_path")
    return api_path


def addresses(payload: Mapping[str, Any]) -> dict[str, str]:
    """Return the addresses that the API would fetch, by field in the client's terms.

    Raises Rejected for those of other schemes: plain http reaches what only this host may ask, its metadata for one.
    """
    found: dict[str, str] = {}
    for name, value in payload.items():
        if not _ADDRESS.fullmatch(name) or value is None:
            continue
        field = f"request_body.{name}"
        if not isinstance(value, str) or not value.lower().startswith(SCHEMES):
            raise Rejected(f"{field} is {shorten(value)}: it must be an s3:// or https:// address", field=field)
        found[field] = value
    return found


def encode(task: Task, *, seed_key: str) -> bytes:
    """Return the body: the request as it came, but that a random seed (-1) is fixed by `seed_key`."""
    body = dict(task.payload)
    if body.get("seed") == -1:
        body["seed"] = pinned_seed(seed_key)
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
