"""Structured logs: fixed event names with fields; JSON lines in service, colours at a terminal, secrets in neither."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "***"
SECRET_NAME = re.compile(
    r"password|passwd|secret|token|api[_-]?key|api_auth|authorization|credential|signature", re.IGNORECASE
)
MAX_CHARS = 1000
"""No field of a log line is longer: prompts and engines' words may be."""


def configure(*, secrets: Sequence[str] = (), stream: TextIO | None = None) -> None:
    """Set the process's logging up; `secrets` are values that no line may show, whatever field they are in."""
    out = stream or sys.stdout
    is_terminal = out.isatty()
    renderer: Processor = (
        structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _time_of_day if is_terminal else structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_nulls,
            structlog.processors.format_exc_info,
            Redactor(secrets),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=lambda *_: structlog.WriteLogger(cast("TextIO", _Lossy(out))),
    )


class _Lossy:
    """A stream that loses what cannot be written: a full disk, or a terminal that was closed, must end no loop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _time_of_day(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the local time as a person at a terminal reads it: HH:MM:SS.mmm."""
    event["timestamp"] = dt.datetime.now().astimezone().isoformat(timespec="milliseconds")[11:23]
    return event


def _without_nulls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out what is not known: a field is there once it means something, as in a record."""
    return {name: value for name, value in event.items() if value is not None}


class Redactor:
    """A processor that hides fields named like secrets, and known secret values wherever they stand."""

    def __init__(self, secrets: Sequence[str]) -> None:
        # The longest first: a secret may begin with another, whose removal would leave the rest to be read.
        self._values = sorted((secret for secret in secrets if len(secret) > 3), key=len, reverse=True)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Return the event with nothing secret in it and no field over its bound."""
        return {
            self._clean_text(name): REDACTED if SECRET_NAME.search(name) and value else self._clean(value)
            for name, value in ((str(key), value) for key, value in event.items())
        }

    def _clean(self, value: Any) -> Any:
        if isinstance(value, dict):
            return dict(self(None, "", value))
        if isinstance(value, (list, tuple)):
            return [self._clean(inner) for inner in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self._clean_text(value if isinstance(value, str) else repr(value))

    def _clean_text(self, text: str) -> str:
        for secret in self._values:
            text = text.replace(secret, REDACTED)
        if len(text) <= MAX_CHARS:
            return text
        half = MAX_CHARS // 2  # a traceback says at its end what happened
        return f"{text[:half]} ... {text[-half:]} ({len(text)} characters)"
