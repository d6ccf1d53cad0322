"""What the job API's refusals and the words of its failed jobs mean for the task, as data; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from scheduler.domain.errors import (
    Counts,
    EngineDown,
    EngineLost,
    Fatal,
    OutOfMemory,
    Rejected,
    SchedulerError,
    Transient,
)

MAX_WORDS = 500
"""Characters of the API's own words that are kept."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row: words that match `text` mean `error`, introduced by `says`."""

    text: re.Pattern[str]
    says: str
    error: Callable[..., SchedulerError]


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


CASES = (
    Case(
        _any_of(r"out of memory", r"OutOfMemory", r"not enough memory", r"can't allocate memory", r"_ALLOC_FAILED"),
        "the engine ran out of memory",
        OutOfMemory,
    ),
    Case(
        _any_of(r"\bcuda\b", r"cudnn", r"cublas", r"\bnvidia", r"\bdriver\b", r"device-side", r"no kernel image"),
        "the engine's GPU or driver failed",
        Fatal,
    ),
    Case(
        _any_of(
            r"error while deserializing header", r"PytorchStreamReader", r"No such file.*\.(safetensors|ckpt|pth?)"
        ),
        "the engine could not load a model file",
        Fatal,
    ),
    Case(
        # Before the next row, for S3 says the same words when a result cannot be written.
        _any_of(r"upload", r"PutObject"),
        "the engine could not store its result",
        partial(Transient, counts=Counts.RUN),
    ),
    Case(
        _any_of(
            r"cannot identify image", r"UnidentifiedImage", r"not an image", r"(invalid|corrupt)\w* image", r"truncated"
        ),
        "the engine could not use an image of the request",
        Rejected,
    ),
    Case(
        _any_of(r"\bdownload", r"\bfetch", r"NoSuchKey", r"NoSuchBucket", r"HeadObject", r"GetObject"),
        "the engine could not fetch an image of the request",
        partial(Transient, counts=Counts.TRY),
    ),
    Case(
        _any_of(r"value_not_in_list", r"value_(smaller|bigger)_than", r"input_missing", r"invalid_input_type"),
        "the engine refused a value of the request",
        Rejected,
    ),
    Case(_any_of(r"validation", r"unsupported"), "the engine refused the request", Rejected),
    Case(_any_of(r""), "the engine failed", partial(Transient, counts=Counts.RUN)),
)
"""In order: the first row whose words are there decides. What nobody knows is tried again, as often as `max_runs` says."""

_REFUSED = frozenset({400, 404, 409, 413, 415, 422})
_CLOSED = frozenset({301, 302, 303, 307, 308, 401, 403, 408, 429, 502, 503})


def failed(words: str) -> SchedulerError:
    """Return what the words of a failed job mean."""
    said = words[:MAX_WORDS] or "no reason given"
    case = next(case for case in CASES if case.text.search(said))
    return case.error(f"{case.says}: {said}", engine=said)


def is_no_route(status: int, body: bytes) -> bool:
    """Tell whether an answer to a post says that the path is not there, and not that the request is wrong."""
    return status == 405 or (status == 404 and _parsed(body).get("detail", "Not Found") == "Not Found")


def refused(status: int, body: bytes) -> SchedulerError:
    """Return what an answer to a post other than success means; `is_no_route` was asked before."""
    answer = _parsed(body)
    detail = answer.get("detail")
    complaints = [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
    said = "; ".join(f"{_place(one)}: {one.get('msg')}" for one in complaints) or _words(answer, body)
    if status in _REFUSED:
        field = _place(complaints[0]) if complaints else None
        return Rejected(f"the job API refused the request: {said}", field=field, engine=said)
    if status in _CLOSED:
        return EngineDown(f"the job API takes no requests ({status}): {said}", engine=said)
    if status == 504:
        return EngineLost(f"the proxy before the job API had no answer from it ({status})", engine=said)
    return failed(f"status {status}: {said}")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _words(answer: dict[str, Any], body: bytes) -> str:
    told = next((str(answer[key]) for key in ("detail", "error", "message") if answer.get(key)), None)
    return (told or body[:MAX_WORDS].decode("utf-8", "replace").strip() or "no words")[:MAX_WORDS]


def _place(complaint: dict[str, Any]) -> str:
    """Name the field of one complaint in the client's terms: the API's body is the message's `request_body`."""
    steps = complaint.get("loc")
    named = [str(step) for step in steps if step != "body"] if isinstance(steps, list) else []
    return ".".join(["request_body", *named])
