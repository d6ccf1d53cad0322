"""`sd-scheduler config supervisor`: supervisord's section for the daemon, as this host's conf.ini asks for it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from scheduler import config
from scheduler.cli.failure import Failure
from scheduler.supervisor_program import program


@click.command("supervisor")
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The file; else ${config.FILE_VARIABLE}, else ./{config.DEFAULT_FILE}.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it to FILE instead of printing it; a FILE that exists is replaced only when the configuration is right.",
)
def supervisor_command(file: Path | None, output: Path | None) -> None:
    """Make supervisord's section for the daemon, with a stop time that agrees with stop_grace_s.

    `supervisorctl update` then stops the daemon gracefully and starts it under the new time.

    \b
    Example:
      sd-scheduler config supervisor -o deploy/supervisord/api-scheduler.conf
    """  # \b is click's own mark for lines that are not to be wrapped
    text = program(config.load(file, os.environ).scheduler.stop_grace_s)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{output}: {error.strerror}", kind="disk") from None
