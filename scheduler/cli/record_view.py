"""A task's record as a person reads it: status first, times as dates, durations in seconds; pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

FIRST = (
    *(
        "status",
        "task_id",
        "taskId",
        "job_type",
        "error_message",
        "cancel_requested",
        "progress",
        "step",
        "node",
        "eta_s",
    ),
    *("checkpoint", "sampler", "warnings", "created_at", "updated_at", "finished_at", "expires_at", "lease_until"),
    *("queued_ms", "prepare_ms", "generate_ms", "store_ms"),
)
"""What people ask for, in this order; the rest follows by name."""
STYLES = {"completed": "green", "failed": "red", "processing": "yellow", "cancelled": "magenta"}
"""The colour of each status."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def plain(value: object) -> object:
    """Turn a number of DynamoDB's into one of JSON's: for `json.dumps(default=...)`."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


RESULTS = ("images", "result_s3_uri")
"""What came of a task; these have lines of their own, at the end."""


def lines(record: Mapping[str, Any], *, now_s: float, zone: dt.tzinfo | None = None) -> list[str]:
    """Return a line for each attribute but the results. `now_s` is epoch seconds; `zone` is local time's when None."""
    names = [name for name in FIRST if name in record]
    names += sorted(name for name in record if name not in FIRST and name not in RESULTS)
    return [f"{name:<14} {_shown(name, record, now_s=now_s, zone=zone)}" for name in names]


def result_lines(record: Mapping[str, Any]) -> list[str]:
    """Return a line for each image, to which `url` was added, and for what an engine stored by itself."""
    images = [f"{'image':<14} {each['url']}  {_size(each)}{each['bytes']} bytes" for each in record.get("images", ())]
    return images + ([f"{'result':<14} {_text(record['result_s3_uri'])}"] if record.get("result_s3_uri") else [])


def _size(image: Mapping[str, Any]) -> str:
    """Return a picture's size in words; videos and sounds have none."""
    return f"{image['width']}x{image['height']}, " if "width" in image else ""


def duration(seconds: float) -> str:
    """Return a length of time, not negative, as it is said: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for n, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            smaller, its_unit = _UNITS[n + 1] if n + 1 < len(_UNITS) else (1, "s")
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {its_unit}" if rest else "")
    return f"{whole} s"


def _shown(name: str, record: Mapping[str, Any], *, now_s: float, zone: dt.tzinfo | None) -> str:
    value = record[name]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if name.endswith("_at") or name == "lease_until":
            return _date(float(value), now_s, zone) + _after_creation(name, float(value), record)
        if name.endswith("_ms"):
            return f"{value} ms" if value < 1000 else duration(float(value) / 1000)
        if name == "eta_s":
            return duration(max(0.0, float(value)))
        if name == "progress":
            return f"{value} %"
    if name == "error" and isinstance(value, Mapping):
        said = {part: text for part, text in value.items() if text != record.get("error_message")}
        return _text(", ".join(f"{part} {text}" for part, text in said.items()))
    return _text(value)


def _text(value: Any) -> str:
    """Return a value as text that cannot steer a terminal."""
    if isinstance(value, str) and value.isprintable():
        return value
    if isinstance(value, list) and value and all(isinstance(each, str) and each.isprintable() for each in value):
        return "; ".join(value)
    return json.dumps(value, default=plain)


def _date(at_s: float, now_s: float, zone: dt.tzinfo | None) -> str:
    try:
        date = dt.datetime.fromtimestamp(at_s, tz=dt.UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return f"{at_s:g}"
    away = f"{duration(now_s - at_s)} ago" if at_s <= now_s else f"in {duration(at_s - now_s)}"
    return f"{date:%Y-%m-%d %H:%M:%S %Z} ({away})"


def _after_creation(name: str, at_s: float, record: Mapping[str, Any]) -> str:
    created = record.get("created_at")
    if name != "finished_at" or not isinstance(created, int | float | Decimal) or at_s < created:
        return ""
    return f", {duration(at_s - float(created))} after created_at"
