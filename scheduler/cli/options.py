"""The options that many commands have, spelled once."""

from __future__ import annotations

from pathlib import Path

import click

from scheduler.config import DEFAULT_FILE, FILE_VARIABLE

config_option = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The configuration; else ${FILE_VARIABLE}, else ./{DEFAULT_FILE}.",
)
local_option = click.option("--local", is_flag=True, help="Talk to the `sd-scheduler local` that runs here.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, also for an error.")


def refuse_both(config: Path | None) -> None:
    """Refuse -c beside --local, which has a configuration of its own. Raises UsageError."""
    if config is not None:
        raise click.UsageError(
            f"--local makes its own configuration and would not read {config}: leave out one of them"
        )
