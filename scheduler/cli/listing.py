"""Shows rows as they become known: a table at a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

import click

STYLES = {
    "ok": "green",
    "exists": "green",
    "created": "bold green",
    "added": "bold green",
    "fixed": "bold green",
    "warn": "yellow",
    "differs": "yellow",
    "skipped": "dim",
    "fail": "bold red",
    "failed": "bold red",
    "refused": "bold red",
}
_STATE_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What it is about, how it stands, in more words, and what to do about it."""

    subject: str
    state: str
    text: str
    advice: str = ""


def show(rows: Iterable[Row], *, subject: str, text: str) -> None:
    """Print each row as it comes; `subject` and `text` head their columns at a terminal."""
    if sys.stdout.isatty():
        _show_table(rows, subject=subject, text=text)
        return
    for row in rows:
        click.echo(f"{row.state:<{_STATE_CHARS}} {row.subject}{': ' if row.text else ''}{row.text}")
        if row.advice:
            click.echo(f"{'':<{_STATE_CHARS}} -> {row.advice}")


def _show_table(rows: Iterable[Row], *, subject: str, text: str) -> None:
    from rich.live import Live  # noqa: PLC0415  # rich is loaded for a terminal only
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    table = Table("", subject, text)
    # What grows past a short terminal would stand there again at each row; it is printed whole in the end.
    with Live(table, auto_refresh=False, transient=True) as live:
        for row in rows:
            words = Text(row.text, overflow="fold")
            if row.advice:
                words.append(f"\n-> {row.advice}", style="bold")
            table.add_row(Text(row.state, style=STYLES.get(row.state.split()[-1], "")), Text(row.subject), words)
            live.refresh()
    live.console.print(table)
