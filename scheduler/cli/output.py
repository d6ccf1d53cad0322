"""What becomes of a command that cannot write its words, or a file: one line, or a quiet end for a reader that left."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from scheduler.cli.failure import Failure

STANDARD_OUTPUT = "standard output"


@contextmanager
def writing(what: str = STANDARD_OUTPUT) -> Iterator[None]:
    """Stand around the writing of `what`: a pipe whose reader has left ends the command well, as `head` expects.

    Raises Failure for a full disk and the like; where standard output itself fails it is told on standard error at
    once, with `--json` too.
    """
    try:
        yield
    except BrokenPipeError:
        _discard_the_rest()
        sys.exit(0)
    except OSError as error:
        failure = Failure(f"{what} cannot be written: {error.strerror or error}", kind="disk")
        if what != STANDARD_OUTPUT:
            raise failure from error
        _discard_the_rest()
        click.echo(failure.text(), err=True)
        sys.exit(failure.code)


def _discard_the_rest() -> None:
    """Let what is still buffered go nowhere, or Python would fail anew at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
