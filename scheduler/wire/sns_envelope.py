"""What SNS puts around a message on its way into a queue, unless the subscription asks for raw delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.wire.fields import wrong

MAX_ID_CHARS = 100


@dataclass(frozen=True, slots=True)
class Envelope:
    """The message as it was published; `sns_id` is the same in every copy of it that SNS delivers.

    `attributes` are the texts of its message attributes.
    """

    text: str
    sns_id: str | None
    attributes: Mapping[str, str] = field(default_factory=dict)


def looks_like(body: Mapping[str, Any]) -> bool:
    """Tell whether `body` means to be an envelope."""
    return "Message" in body


def unwrap(body: Mapping[str, Any]) -> Envelope:
    """Return what is in the envelope, or raise Rejected naming the field."""
    kind = body.get("Type", "Notification")
    if kind != "Notification":
        raise wrong("Type", kind, "must be 'Notification': other messages of SNS hold no task")
    text, sns_id, given = body["Message"], body.get("MessageId"), body.get("MessageAttributes")
    if not isinstance(text, str):
        raise wrong("Message", text, "must be the text of a message, as SNS delivers it")
    if sns_id is not None and not (isinstance(sns_id, str) and 0 < len(sns_id) <= MAX_ID_CHARS):
        raise wrong("MessageId", sns_id, "must be the id of the message, as SNS gives it")
    named = given.items() if isinstance(given, dict) else ()
    texts = {name: one["Value"] for name, one in named if isinstance(one, dict) and isinstance(one.get("Value"), str)}
    return Envelope(text, sns_id, texts)
