"""How an A1111 engine's answer that is not a picture is read, by the table in `sdwebui_error_table`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from scheduler.domain.errors import SchedulerError
from scheduler.engines.error_cases import MAX_WORDS, Refusal, case_of, error_of
from scheduler.engines.sdwebui_error_table import CASES


def read(status: int, body: bytes) -> Refusal:
    """Take an answer apart; any bytes will do."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = body[:MAX_WORDS].decode("utf-8", "replace").strip()
    if not isinstance(answer, dict):
        return Refusal(status=status, error="", said=str(answer)[:MAX_WORDS], is_foreign=True)
    error, detail = answer.get("error"), answer.get("detail")
    if isinstance(detail, list):
        complaints = [one for one in detail if isinstance(one, dict)]
        said = "; ".join(f"{'.'.join(_steps(one))}: {one.get('msg')}" for one in complaints)
    else:
        said = next((str(answer[key]) for key in ("errors", "detail", "message") if answer.get(key)), "")
    return Refusal(
        status=status,
        error=error if isinstance(error, str) else "",
        said=said,
        detail=detail,
        is_foreign=detail == "Not Found" or (detail is None and error is None),
    )


def classify(status: int, body: bytes, *, payload: Mapping[str, Any]) -> SchedulerError:
    """Return what an answer that is not 200 means; `payload` is the request, by which the wrong field is named."""
    refusal = read(status, body)
    return error_of(case_of(refusal, CASES), refusal, field=_field(refusal, payload))


def _steps(complaint: Mapping[str, Any]) -> list[str]:
    loc = complaint.get("loc")
    return [str(step) for step in loc if step != "body"] if isinstance(loc, list) else []


def _field(refusal: Refusal, payload: Mapping[str, Any]) -> str | None:
    """Name the field that the engine's words point at, if they do."""
    if isinstance(refusal.detail, list):
        complaint = next((one for one in refusal.detail if isinstance(one, dict)), {})
        return ".".join(["payload", *_steps(complaint)])
    if refusal.said == "Init image not found":
        return "payload.init_images"
    overrides = payload.get("override_settings")
    if refusal.error == "KeyError" and isinstance(overrides, Mapping) and (key := refusal.said.strip("'")) in overrides:
        return f"payload.override_settings.{key}"
    if script := re.fullmatch(r"Script '(.*)' not found", refusal.said):
        always = payload.get("alwayson_scripts")
        is_always = isinstance(always, Mapping) and script[1] in always
        return f"payload.alwayson_scripts.{script[1]}" if is_always else "payload.script_name"
    return None
