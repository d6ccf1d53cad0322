"""Items of the fleet's table as values: what makes no sense is refused by name, never guessed at; no I/O here.

A record is trusted whole or not at all: conditional writes name its attributes, and one that was filled in here would
never match what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from scheduler.autoscale.book import Book, Pause, Published
from scheduler.autoscale.protocol import Worker

Read = TypeVar("Read")
WORKER = "worker#"
WORKER_NEEDS = frozenset(
    {
        "instance_id",
        "boot_id",
        "state",
        "drain_no",
        "beat",
        "recall",
        "replace",
        "why",
        "dead",
        "since_s",
        "registered_s",
    }
)
_WORKER = TypeAdapter(Worker)
_BOOK = TypeAdapter(Book)
_PUBLISHED = TypeAdapter(Published)
_PAUSE = TypeAdapter(Pause)


class OddRecord(Exception):
    """A record that is half there, or that nobody of us wrote; its words say what is wrong with it."""


def worker_of(item: Mapping[str, Any]) -> Worker:
    """Return a worker's record; what later versions added is left out. Raises OddRecord."""
    with _judged(item, WORKER_NEEDS):
        worker = _read(_WORKER, {**item, "report": json.loads(item.get("report", "{}"))})
    if item["item"] != WORKER + worker.instance_id:
        raise OddRecord(f"instance_id is {worker.instance_id!r}")
    return worker


def book_of(item: Mapping[str, Any]) -> Book:
    """Return a decision; what later versions added is left out. Raises OddRecord."""
    with _judged(item, {"version", "body"}):
        book = _read(_BOOK, json.loads(item["body"]))
    if book.version != item["version"]:
        raise OddRecord(f"its body is of version {book.version}")
    return book


def published_of(item: Mapping[str, Any]) -> Published:
    """Return the settings that all follow. Raises OddRecord."""
    with _judged(item, {"version", "modified_s", "by", "body"}):
        return _read(_PUBLISHED, {**item, "values": json.loads(item["body"])})


def pause_of(item: Mapping[str, Any]) -> Pause:
    """Return a pause. Raises OddRecord."""
    with _judged(item, {"until_s", "by"}):
        return _read(_PAUSE, item)


def version_of(item: Mapping[str, Any]) -> int:
    """Return an item's version, without which nobody can write it. Raises OddRecord."""
    version = item.get("version")
    if isinstance(version, Decimal) and version == version.to_integral_value():
        return int(version)
    raise OddRecord(f"version is {version!r}")


@contextmanager
def _judged(item: Mapping[str, Any], needs: frozenset[str] | set[str]) -> Iterator[None]:
    """Raise OddRecord for what `item` lacks of `needs`, and for whatever cannot be read inside the block."""
    if missing := sorted(needs - item.keys()):
        raise OddRecord(f"it has no {', '.join(missing)}")
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OddRecord(f"{where}: {first['msg']}" if where else first["msg"]) from error
    except (TypeError, ValueError) as error:
        raise OddRecord(str(error)) from error


def _read(adapter: TypeAdapter[Read], facts: Mapping[str, Any]) -> Read:
    """Return a value of exactly these facts. By way of JSON, in which lists may be tuples and nothing else is bent."""
    return adapter.validate_json(json.dumps(facts, default=_number, allow_nan=False), strict=True)


def _number(value: object) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError(f"{value!r} is nothing that we write")
    return int(value) if value == value.to_integral_value() else float(value)
