"""How the job API's refusals and the words of its failed jobs are read, by `job_api_error_table`; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from scheduler.domain.errors import SchedulerError
from scheduler.engines.error_cases import MAX_WORDS, Case, Refusal, case_of, error_of
from scheduler.engines.job_api_error_table import CASES

_ADDRESS = re.compile(r"\b\w{1,20}://\S+")


def failed(words: str) -> SchedulerError:
    """Return what the words of a failed job mean."""
    refusal = Refusal(status=200, error="", said=words or "no reason given")
    return error_of(row_of(refusal), refusal, field=None)


def refused(status: int, body: bytes) -> SchedulerError:
    """Return what an answer to a post other than success means. EngineDown may also mean that the path is not there."""
    refusal = read(status, body)
    return error_of(row_of(refusal), refusal, field=_field(refusal.detail))


def read(status: int, body: bytes) -> Refusal:
    """Take an answer to a post apart; any bytes will do."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        said = body[:MAX_WORDS].decode("utf-8", "replace").strip()
        return Refusal(status=status, error="", said=said, is_foreign=True)
    detail = answer.get("detail")
    told = next((str(answer[key]) for key in ("detail", "error", "message") if answer.get(key)), "")
    said = "; ".join(f"{_place(one)}: {one.get('msg')}" for one in _complaints(detail)) or told
    return Refusal(status=status, error="", said=said, detail=detail, is_foreign=told in {"", "Not Found"})


def row_of(refusal: Refusal) -> Case:
    """Return the row that speaks of this answer. Addresses are the client's own words and no sign of anything."""
    return case_of(replace(refusal, said=_ADDRESS.sub("", refusal.said)), CASES)


def _complaints(detail: Any) -> list[Mapping[str, Any]]:
    return [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []


def _field(detail: Any) -> str | None:
    found = _complaints(detail)
    return _place(found[0]) if found else None


def _place(complaint: Mapping[str, Any]) -> str:
    """Name the field of one complaint in the client's terms: the API's body is the message's `request_body`."""
    steps = complaint.get("loc")
    named = [str(step) for step in steps if step != "body"] if isinstance(steps, list) else []
    return ".".join(["request_body", *named])
