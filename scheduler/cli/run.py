"""``sd-scheduler run``: the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from scheduler.cli.options import config_option, refuse_both


@click.command("run")
@config_option
@click.option("--local", is_flag=True, help="Without AWS and GPU: the same as `sd-scheduler local`.")
def run_command(config: Path | None, local: bool) -> None:
    """Work until SIGTERM or Ctrl-C: poll, render, store, record.

    Exits with 0 after a stop, 2 for a wrong configuration, 70 when a part of it died (supervisord starts it again).

    \b
    Example:
      sd-scheduler run -c /etc/sd-scheduler/conf.ini
    """
    if local:
        refuse_both(config)
        from scheduler.cli.local import local_command  # noqa: PLC0415 - brings the emulator, which hosts do not have

        sys.exit(local_command.main(args=[], standalone_mode=False))
    from scheduler.app import Scheduler  # noqa: PLC0415 - boto3 takes a second to load, and --help needs none of it
    from scheduler.config import load  # noqa: PLC0415
    from scheduler.observe import logging  # noqa: PLC0415

    settings = load(config, os.environ)
    logging.configure(secrets=settings.secrets)
    sys.exit(Scheduler(settings).run())
