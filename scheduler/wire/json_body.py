"""A message's body as JSON that every later step can carry: one place for what JSON lets through and we do not."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from scheduler.domain.errors import Rejected

MAX_DEPTH = 100
"""How deep objects and lists may lie in each other: far below where Python's own recursion gives up, in any thread."""
MAX_VALUES = 1_000_000
"""A value of two characters takes a hundred bytes of memory once it is read. No message of SQS can hold so many; a body
that lies in S3 can."""


def shorten(value: object, chars: int = 80) -> str:
    """Return `value` as it may stand in an error or a log line: one line, bounded, ASCII."""
    text = ascii(value)
    return text if len(text) <= chars else text[:chars] + f"... ({len(text)} characters)"


def parse_json(text: str, *, field: str) -> Any:
    """Return the JSON value in `text`; `field` is what the error calls it.

    Raises Rejected for NaN and infinities, broken surrogates, nesting too deep to walk, numbers too long to read, more
    values than anybody needs.
    """
    if sum(text.count(mark) for mark in ",[{") > MAX_VALUES:
        raise Rejected(f"{field} holds more than {MAX_VALUES} values", field=field)
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        _require_shallow(value)
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Rejected(f"{field} is nested too deeply", field=field) from None
    except UnicodeEncodeError as error:
        raise Rejected(f"{field} holds half of a surrogate pair, which is no character: {error}", field=field) from None
    except ValueError as error:
        raise Rejected(f"{field} is not JSON: {error}; it begins {shorten(text)}", field=field) from None
    return value


def parse_object(text: str, *, field: str) -> dict[str, Any]:
    """Return the JSON object in `text`. Raises Rejected as `parse_json` does, and for any other value."""
    return require_object(parse_json(text, field=field), field=field)


def require_object(value: object, *, field: str) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else raise Rejected."""
    if not isinstance(value, dict):
        raise Rejected(f"{field} must be a JSON object, not {type(value).__name__}: {shorten(value)}", field=field)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shorten(text)} is too large a number")
    return value


def _require_shallow(value: object) -> None:
    """Raise RecursionError when `value` is nested deeper than `MAX_DEPTH`, itself without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [inner for inner in level if isinstance(inner, (dict, list))]
        if not nested:
            return
        level = [inner for outer in nested for inner in (outer.values() if isinstance(outer, dict) else outer)]
    raise RecursionError


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
