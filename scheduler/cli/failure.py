"""How a command ends that did not do what it was asked: words for a person or one JSON object, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from scheduler.domain.errors import AccessDenied, ConfigError, Rejected, SchedulerError, Transient
from scheduler.observe.advice import advice_for

FAILED, WRONG_USE, REFUSED, INTERRUPTED = 1, 2, 3, 130


class Failure(Exception):
    """The end of a command. `facts` are for machines, beside `kind` and the message; `advice` is for both."""

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        code: int = FAILED,
        advice: str | None = None,
        lines: tuple[str, ...] | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.code = code
        self.advice = advice
        self._lines = (f"error: {message}",) if lines is None else lines
        self._facts = facts

    def text(self) -> str:
        """Return what a person reads on standard error."""
        return "\n".join([*self._lines, *([f"  -> {self.advice}"] if self.advice else [])])

    def json(self) -> str:
        """Return the object that `--json` prints on standard output in place of a result;
        what is not known is absent.
        """
        told = {"ok": False, "error": self.message, "kind": self.kind, **self._facts, "advice": self.advice}
        return json.dumps({name: value for name, value in told.items() if value is not None})


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Stand around the reading of `what`, which is no conf.ini: its ConfigError becomes a Failure of that kind."""
    try:
        yield
    except ConfigError as error:
        raise _of_problems(error, f"the {what}", kind=what) from error


def failure_of(error: SchedulerError | click.ClickException | KeyboardInterrupt) -> Failure:
    """Say one of our errors, click's, or a Ctrl-C as the end of a command."""
    match error:
        case KeyboardInterrupt():  # click itself would end with 1, as if the command had failed
            return Failure("interrupted", kind="interrupted", code=INTERRUPTED, lines=("interrupted",))
        case click.UsageError():
            help_command = f"{error.ctx.command_path} --help" if error.ctx else None
            return Failure(error.format_message(), kind="usage", code=error.exit_code, advice=help_command)
        case click.ClickException():
            return Failure(error.format_message(), kind="failed", code=error.exit_code)
        case ConfigError():
            return _of_problems(error, "the configuration", kind="configuration")
        case Rejected():
            where = f" (field {error.field})" if error.field else ""
            lines = (f"refused: {error.message}{where}",)
            return Failure(error.message, kind=error.kind, code=REFUSED, lines=lines, field=error.field)
        case Transient():
            code = REFUSED if isinstance(error, AccessDenied) else FAILED
            return Failure(error.message, kind=error.kind, code=code, advice=advice_for(error))
    return Failure(str(error), kind="failed")


def _of_problems(error: ConfigError, what: str, *, kind: str) -> Failure:
    count = f"{len(error.problems)} problem{'s' if len(error.problems) != 1 else ''}"
    lines = (*error.problems, count)
    return Failure(f"{what} has {count}", kind=kind, code=WRONG_USE, lines=lines, problems=error.problems)
