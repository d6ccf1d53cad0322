"""What a message's body means, for people and for scripts; pure."""

from __future__ import annotations

import json
from typing import Any

from scheduler.domain.task import Task
from scheduler.wire.claim_check import Pointer

MAX_CHARS = 300


def meaning_of(found: Task | str | Pointer) -> dict[str, Any]:
    """Return what was recognised, by name; what the format does not know is left out."""
    match found:
        case Task():
            kind = {"api_path": found.api_path} if found.api_path else {"task_type": found.task_type.value}
            told = {"sns_id": found.sns_id, "webhook": found.webhook, "preview": found.preview or None}
            return {
                "format": found.format.value,
                "task_id": found.task_id,
                **kind,
                "runtime": found.runtime,
                "checkpoint": found.checkpoint,
                "prefix": found.prefix,
                **{name: value for name, value in told.items() if value is not None},
                "context": found.context,
                "fingerprint": found.fingerprint,
                "payload": found.payload,
            }
        case Pointer():
            return {"format": "claim-check", "body": found.address, "bytes": found.size_bytes, "sns_id": found.sns_id}
        case _:
            return {"format": "predecessor", "task_id": found, "request": "in the table"}


def in_words(value: object) -> str:
    """Return a value in one line, however large it is."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}... ({len(text)} characters)"
