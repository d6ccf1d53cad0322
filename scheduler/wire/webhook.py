"""Webhooks as Standard Webhooks describes them: what is sent, and how it is signed; pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from scheduler.domain.ends import End
from scheduler.domain.task import Result

MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
MAX_ERROR_CHARS = 1000
_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for: base64, with or without ``whsec_`` before it, as receivers read it too.

    Raises ValueError, saying what would be right.
    """
    right = (
        f"expected {_PREFIX} and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in base64, "
        f"such as $(openssl rand -base64 32) makes"
    )
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(right) from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(right)
    return key


def headers(key: bytes | None, *, named: str, at_s: float, body: bytes) -> dict[str, str]:
    """Return the headers of one try at sending `body` at `at_s` (epoch seconds).

    Without a key there is no signature: a receiver that asks for one refuses the request by itself, and one that asks
    for none learns nothing that it could not ask the record about.
    """
    told = {"Content-Type": "application/json", "webhook-id": named, "webhook-timestamp": str(int(at_s))}
    if key is None:
        return told
    signed = f"{named}.{int(at_s)}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return told | {"webhook-signature": f"v1,{signature}"}


def body(end: End, *, address: Callable[[str], str]) -> bytes:
    """Return what is sent of an end; `address` turns an image's key into the address that clients are given."""
    data: dict[str, Any] = {
        "task_id": end.task.task_id,
        "status": end.status,
        "image_urls": end.outcome.addresses(address) if isinstance(end.outcome, Result) else [],
        "error": None if isinstance(end.outcome, Result) else end.outcome.message[:MAX_ERROR_CHARS],
        "context": end.task.context,
    }
    moment = dt.datetime.fromtimestamp(int(end.at_s), tz=dt.UTC)
    return json.dumps(
        {"type": f"task.{end.status}", "timestamp": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "data": data}
    ).encode()
