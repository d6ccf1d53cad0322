"""Values that several formats share, checked and named; null counts as absent."""

from __future__ import annotations

from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.keys import TASK_ID
from scheduler.wire.json_body import shorten

ID_RULE = "must be 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit"
MAX_NAME_CHARS = 300
MAX_PREFIX_CHARS = 1000


def wrong(field: str, value: object, right: str) -> Rejected:
    """Return the error that `field` holds `value`, where it ought to be as `right` says."""
    said = "is missing" if value is None else f"is {shorten(value)}"
    return Rejected(f"{field} {said}; it {right}", field=field)


def task_id(value: object, field: str, *, may_be_number: bool = False) -> str:
    """Return a task's id, from a whole number too where clients may send one. Raises Rejected."""
    text = str(value) if may_be_number and type(value) is int else value
    if not isinstance(text, str) or not TASK_ID.fullmatch(text):
        raise wrong(field, value, ID_RULE)
    return text


def mapping(value: object, field: str, right: str) -> dict[str, Any]:
    """Return a JSON object. Raises Rejected."""
    if not isinstance(value, dict):
        raise wrong(field, value, f"must be an object {right}")
    return value


def optional_mapping(value: object, field: str, right: str) -> dict[str, Any]:
    """Return a JSON object, empty when it is absent. Raises Rejected."""
    return {} if value is None else mapping(value, field, right)


def optional_name(value: object, field: str) -> str | None:
    """Return a name, None when it is absent. Raises Rejected."""
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise wrong(field, value, f"must be a name of 1 to {MAX_NAME_CHARS} characters")
    return value


def optional_prefix(value: object, field: str) -> str | None:
    """Return where the pictures go, None when that is not said. Raises Rejected."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_PREFIX_CHARS:
        raise wrong(field, value, f"must be text of at most {MAX_PREFIX_CHARS} characters")
    return value or None
