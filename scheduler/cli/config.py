"""`sd-scheduler config`: check, show and write the configuration; it starts nothing and asks no service."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from scheduler import config, config_pages
from scheduler.cli.failure import Failure
from scheduler.cli.options import json_option
from scheduler.cli.supervise import supervisor_command

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _config_option(explanation: str) -> Callable[[_Command], _Command]:
    return click.option(
        "-c", "--config", "file", type=click.Path(path_type=Path), metavar="FILE", help=explanation, default=None
    )


_file_option = _config_option(f"The file; else ${config.FILE_VARIABLE}, else ./{config.DEFAULT_FILE}.")


@click.group("config")
def config_group() -> None:
    """Check, show or make the configuration.

    \b
    Example:
      sd-scheduler config template -c conf.ini
      sd-scheduler config check
    """  # \b is click's own mark for lines that are not to be wrapped


@config_group.command()
@_file_option
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Tell everything that is wrong with the configuration, and which engines it comes to.

    Exit code 0 when nothing is, 2 otherwise, with one line for each problem. A value that is still the template's
    example is warned about. Engines are listed, not asked: that is doctor's.

    \b
    Example:
      sd-scheduler config check -c /etc/sd-scheduler/conf.ini
    """  # \b is click's own mark for lines that are not to be wrapped
    settings = config.load(file, os.environ)
    examples = config_pages.left_as_examples(settings)
    if as_json:
        file_read = settings.file and str(settings.file)
        engines = [asdict(engine) for engine in settings.configured_engines]
        told = {"ok": True, "file": file_read, "problems": [], "left_as_examples": examples, "engines": engines}
        click.echo(json.dumps(told, indent=2))
        return
    rows = config_pages.effective(settings)
    given = [row.source for row in rows if row.source != "default"]
    in_file = sum(":" in source for source in given)
    read = f"{in_file} keys from {settings.file}" if settings.file else "no file read"
    click.echo(f"OK: {read}, {len(given) - in_file} from the environment, {len(rows) - len(given)} by default")
    for engine in settings.configured_engines:
        click.echo(f"engine {engine}")
    if not settings.has_webui:
        click.echo(
            "no engine is made of [sd_api]: [engines] lists them, and the WebUI is one only with sd_api_base_url given"
        )
    for key in examples:
        click.secho(f"warning: [aws] {key} is still the template's example: write your own", err=True, fg="yellow")


@config_group.command()
@_file_option
@json_option
def show(file: Path | None, as_json: bool) -> None:
    """Print every setting in effect and where it comes from, secrets hidden; what is not in use is marked so.

    \b
    Example:
      sd-scheduler config show
      sd-scheduler config show --json | jq -r .aws.s3_bucket.value
    """  # \b is click's own mark for lines that are not to be wrapped
    rows = config_pages.effective(config.load(file, os.environ)) + _endpoints(os.environ)
    if as_json:
        sections: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            note = {"note": row.note} if row.note else {}
            sections.setdefault(row.section, {})[row.key] = {"value": row.value, "source": row.source, **note}
        click.echo(json.dumps(sections, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@config_group.command()
@_config_option("Write it to FILE instead of printing it; never over a file that exists.")
@click.option("--format", "form", type=click.Choice(["ini", "markdown"]), default="ini", help="Default: ini.")
def template(file: Path | None, form: str) -> None:
    """Print an empty configuration with every key explained.

    \b
    Example:
      sd-scheduler config template > conf.ini
      sd-scheduler config template --format markdown
    """  # \b is click's own mark for lines that are not to be wrapped
    text = config_pages.template() if form == "ini" else config_pages.markdown_table()
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", kind="disk") from None
    click.echo(f"wrote {file}", err=True)


def _endpoints(environ: Mapping[str, str]) -> list[config_pages.Shown]:
    """Return the variables by which boto3 itself is sent elsewhere."""
    return [
        config_pages.Shown("environment", name, config.hide_login(value), name)
        for name, value in sorted(environ.items())
        if name == "AWS_ENDPOINT_URL" or name.startswith("AWS_ENDPOINT_URL_")
    ]


def _print_table(rows: list[config_pages.Shown]) -> None:
    noted = any(row.note for row in rows)
    table = Table("section", Column("key", no_wrap=True), "value", "source", *(["note"] if noted else []))
    for row in rows:
        style = "dim" if row.source == "default" else ""
        table.add_row(*(Text(cell, style=style, overflow="fold") for cell in (row if noted else row[:-1])))
    Console().print(table)


config_group.add_command(supervisor_command)
