"""One line at the terminal that says how far something is: written over by the next, and gone at the end."""

from __future__ import annotations

import sys

import click

CLEAR = "\r\x1b[K"


class LiveLine:
    """The line, on standard error; nothing is written unless it `shows`."""

    def __init__(self, *, shows: bool) -> None:
        self._shows = shows

    @classmethod
    def for_people(cls, *, as_json: bool) -> LiveLine:
        """Return one that shows at a terminal, and not beside JSON."""
        return cls(shows=sys.stderr.isatty() and not as_json)

    def say(self, text: str) -> None:
        """Write `text` over what stands there."""
        if self._shows:
            click.echo(f"{CLEAR}{text}", err=True, nl=False, color=True)

    def clear(self) -> None:
        """Leave an empty line, for what is to be read later."""
        self.say("")
