"""The root command: which commands there are, each loaded only when it is asked for.

A daemon must not carry the weight of tables, colours and emulators; so importing a command is part of running it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from scheduler.domain.errors import AccessDenied, ConfigError, SchedulerError

COMMANDS = {
    "run": "scheduler.cli.run:run_command",
    "local": "scheduler.cli.local:local_command",
    "setup": "scheduler.cli.setup:setup_command",
    "doctor": "scheduler.cli.doctor:doctor_command",
    "config": "scheduler.cli.config:config_group",
    "task": "scheduler.cli.task:task_group",
    "fleet": "scheduler.cli.fleet:fleet_group",
    "autoscale": "scheduler.cli.autoscale:autoscale_command",
}
FAILED, WRONG_USE, REFUSED, INTERRUPTED = 1, 2, 3, 130


class _Root(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run the command; our own errors end with a line for a person and the exit code that CONTRIBUTING lists."""
        try:
            return super().invoke(context)
        except ConfigError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            sys.exit(WRONG_USE)
        except SchedulerError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(REFUSED if isinstance(error, AccessDenied) else FAILED)
        except KeyboardInterrupt:  # click itself would end with 1, as if the command had failed
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)


@click.command(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="sd-scheduler")
def cli() -> None:
    """Turn SQS messages into Stable Diffusion images in S3 and records in DynamoDB.

    \b
    On a laptop, without an AWS account:   sd-scheduler local --demo
    On an instance:                        sd-scheduler doctor && sd-scheduler run
    """
