"""``sd-scheduler task export-trace``: what was asked for, and when, for ``sd-scheduler simulate``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import click

from scheduler.aws.operator_clients import build
from scheduler.cli.live_line import LiveLine
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.output import STANDARD_OUTPUT, writing
from scheduler.cli.session import load_settings
from scheduler.stores.done_tasks import DoneTask, Page, pages

HEAD = ("t", "service_s", "model", "steps", "images")
STANDARD = Path("-")


@dataclass(slots=True)
class _Count:
    tasks: int = 0
    records: int = 0
    read_units: float = 0.0

    def add(self, page: Page) -> None:
        self.tasks += len(page.tasks)
        self.records += page.records
        self.read_units += page.read_units


@click.command("export-trace", short_help="Write the finished tasks as a trace for simulate.")
@config_option
@local_option
@json_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=STANDARD,
    metavar="FILE",
    help="The CSV; else standard output.",
)
def export_command(config: Path | None, local: bool, as_json: bool, output: Path) -> None:
    """Write a line for each task that a GPU worked for: when it was sent and for how long, both in seconds, and what
    its record tells of checkpoint, steps and images. Lines are in the table's order, which simulate does not mind.

    The table is scanned once, which needs dynamodb:Scan (no worker has it) and costs half a read unit for each 4 KB of
    it: about 3 cents for a million records of 2 KB at $0.125 a million read units. FILE is written when all is read.

    \b
    Example:
      sd-scheduler task export-trace -o requests.csv && sd-scheduler simulate --trace requests.csv
    """
    if as_json and output == STANDARD:
        raise click.UsageError("--json needs --output: standard output cannot hold both")
    settings = load_settings(config, local=local)
    read = pages(build(settings.aws.aws_region).dynamodb, settings.aws.dynamodb_table)
    line, count = LiveLine.for_people(as_json=as_json), _Count()
    with writing(STANDARD_OUTPUT if output == STANDARD else str(output)):
        _write(output, read, line, count)
    line.clear()
    if as_json:
        click.echo(json.dumps({"file": str(output), **asdict(count)}))
    else:
        click.echo(f"{count.tasks:,} tasks of {count.records:,} records; {count.read_units:,g} read units", err=True)


def _write(output: Path, read: Iterable[Page], line: LiveLine, count: _Count) -> None:
    """Write all pages; a file appears, or is replaced, at the end only."""
    if output == STANDARD:
        _write_to(sys.stdout, read, line, count)
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            _write_to(file, read, line, count)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _write_to(file: IO[str], read: Iterable[Page], line: LiveLine, count: _Count) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(HEAD)
    for page in read:
        rows.writerows(map(_row, page.tasks))
        count.add(page)
        line.say(f"{count.tasks:,} tasks of {count.records:,} records")
    file.flush()


def _row(task: DoneTask) -> tuple[str, str, str, str, str]:
    """Return the columns of `HEAD`; what is not known stays empty."""
    steps, images = (str(count) if count else "" for count in (task.steps, task.images))
    return f"{task.sent_at_s:.3f}".rstrip("0").rstrip("."), f"{task.service_s:g}", task.checkpoint, steps, images
