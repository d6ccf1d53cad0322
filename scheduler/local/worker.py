"""One worker of the local fleet: ``python -m scheduler.local.worker -c conf.ini``, the real daemon with a stand-in of
its own.

Everything else comes through the environment, as on an instance: AWS's endpoint, and the instance's metadata.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from scheduler.app import Scheduler
from scheduler.config import load
from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.standin.process import StandinOptions, StandinProcess
from scheduler.observe import logging


@click.command()
@click.option("-c", "--config", type=click.Path(path_type=Path), required=True, help="The fleet's conf.ini.")
@click.option("--seconds-per-step", default=0.05, show_default=True, help="How slow the stand-in is.")
@click.option("--switch-seconds", default=1.0, show_default=True, help="How long it takes to load a checkpoint.")
@click.option("--checkpoints", default=CHECKPOINTS[0], show_default=True, help="With commas between them.")
def main(config: Path, seconds_per_step: float, switch_seconds: float, checkpoints: str) -> None:
    """Run until a signal."""
    options = StandinOptions(
        seconds_per_step=seconds_per_step, switch_seconds=switch_seconds, checkpoints=tuple(checkpoints.split(","))
    )
    with StandinProcess(options) as engine:
        os.environ["SCHEDULER_SD_API_SD_API_BASE_URL"] = engine.base_url
        settings = load(config, os.environ)
        logging.configure(secrets=settings.secrets)
        code = Scheduler(settings).run()
    sys.exit(code)


if __name__ == "__main__":
    main()
