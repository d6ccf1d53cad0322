"""The root command: which commands there are, each loaded only when it is asked for.

A daemon must not carry the weight of tables, colours and emulators; so importing a command is part of running it.
"""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any, NoReturn

import click

from scheduler.cli.failure import Failure, failure_of
from scheduler.domain.errors import SchedulerError

COMMANDS = {
    "run": "scheduler.cli.run:run_command",
    "local": "scheduler.cli.local:local_command",
    "setup": "scheduler.cli.setup:setup_command",
    "doctor": "scheduler.cli.doctor:doctor_command",
    "config": "scheduler.cli.config:config_group",
    "task": "scheduler.cli.task:task_group",
    "fleet": "scheduler.cli.fleet:fleet_group",
    "autoscale": "scheduler.cli.autoscale:autoscale_command",
    "simulate": "scheduler.cli.simulate:simulate_command",
}

_AS_JSON = "scheduler.as_json"
_CONFIG = re.compile(r"-c|--config|(-c|--config=)(?P<file>.+)", re.DOTALL)


class _Root(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line; `-c FILE` before the command is taken as if it stood behind it."""
        as_json = "--json" in args
        try:
            context = super().make_context(info_name, self._config_behind(args), parent, **extra)
        except click.ClickException as error:
            if not as_json:
                raise
            _end(failure_of(error), as_json=True)
        context.meta[_AS_JSON] = as_json
        return context

    def invoke(self, context: click.Context) -> Any:
        """Run the command. What it cannot do ends with a line for a person, or an object for `--json`, and a code."""
        as_json: bool = context.meta[_AS_JSON]
        try:
            return super().invoke(context)
        except Failure as failure:
            _end(failure, as_json=as_json)
        except click.ClickException as error:
            if not as_json:
                raise  # click shows the usage line, too
            _end(failure_of(error), as_json=True)
        except (SchedulerError, KeyboardInterrupt) as error:
            _end(failure_of(error), as_json=as_json)

    def _config_behind(self, args: list[str]) -> list[str]:
        """Move a leading `-c FILE` to where the command reads it: behind its name, or that of the group's command."""
        matched = _CONFIG.fullmatch(args[0]) if args else None
        if matched is None:
            return args
        width = 1 if matched["file"] else 2
        option, rest = args[:width], args[width:]
        depth = 0
        command: click.Command | None = self
        while isinstance(command, click.Group) and depth < len(rest):
            command = command.get_command(click.Context(command), rest[depth])
            depth += 1
        if len(option) < width or command is None or isinstance(command, click.Group):
            return args  # for click to say what is wrong
        return [*rest[:depth], *option, *rest[depth:]]


def _end(failure: Failure, *, as_json: bool) -> NoReturn:
    click.echo(failure.json() if as_json else failure.text(), err=not as_json)
    sys.exit(failure.code)


@click.command(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="sd-scheduler")
def cli() -> None:
    """Turn SQS messages into Stable Diffusion images in S3 and records in DynamoDB.

    \b
    On a laptop, without an AWS account:   sd-scheduler local --demo
    On an instance:                        sd-scheduler doctor && sd-scheduler run
    """
