"""Local mode's fleet at a terminal: its demo, live, with a verdict,
or plain lines in a pipe; or kept until a signal.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scheduler.cli.autoscale import lead_until_told
from scheduler.cli.fleet_view import fleet_table
from scheduler.cli.session import own_name
from scheduler.config import load
from scheduler.fleet import make_leader, open_fleet
from scheduler.local import fleet_demo
from scheduler.local.fleet_demo import Moment
from scheduler.local.fleet_world import LocalFleetWorld
from scheduler.local.world import LocalWorld
from scheduler.observe import logging

TASKS = 40
MAX_CAPACITY = 3
QUICK = {"policy": "threshold", "scale_out_threshold": 0, "scale_out_step": MAX_CAPACITY, "cooldown_s": 10}
"""The default policy keeps idle workers for as long as they may be worth it, which nobody wants to watch."""


def run_fleet_demo(world: LocalWorld, folder: Path) -> int:
    """Run the demo in a world that is up; return the exit code."""
    console = Console()
    console.print(
        f"A burst of {TASKS} tasks, and no worker: the fleet grows to {MAX_CAPACITY}, and goes again when idle. "
        f"Policy: threshold, {QUICK['cooldown_s']} s between changes; the default, backlog, would hold on to idle workers "
        "for longer. Workers report every 10 s.",
        soft_wrap=True,
    )
    with contextlib.ExitStack() as stack:
        logging.configure(stream=stack.enter_context((folder / "fleet.log").open("w")))
        stack.enter_context(LocalFleetWorld(world, max_capacity=MAX_CAPACITY, keys=QUICK))
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False))

            def show(moment: Moment) -> None:
                live.update(Group(_headline(moment), fleet_table(moment.fleet)), refresh=True)

        else:
            show = _Lines(console)
        verdict = fleet_demo.run(world.config, tasks=TASKS, show=show)
    console.print(
        f"{verdict.completed} of {verdict.sent} tasks completed in {verdict.runs} runs, {verdict.peak} workers at the most, "
        f"{verdict.members_left} left after {verdict.lasted_s:.0f} s.",
        soft_wrap=True,
    )
    if verdict.is_as_meant:
        console.print("[green]Grown from nothing, gone again, nothing killed.[/green]")
        return 0
    if verdict.leader_died:
        console.print(f"its leader died: {verdict.leader_died}", soft_wrap=True, markup=False)
    console.print(f"[red]not as meant[/red]; the log is {folder / 'fleet.log'}, the workers' are in {folder / 'fleet'}")
    return 1


def keep_local_fleet(world: LocalWorld, folder: Path) -> int:
    """Keep a fleet of worker processes in a world that is up, by the configuration as it is, until a signal."""
    with contextlib.ExitStack() as stack:
        logging.configure(stream=stack.enter_context((folder / "fleet.log").open("w")))
        stack.enter_context(LocalFleetWorld(world, max_capacity=MAX_CAPACITY))
        parts = open_fleet(load(world.config, os.environ), host="local")
        click.echo(
            f"AWS (moto)  {world.endpoint}\n"
            f"fleet       none to {MAX_CAPACITY} workers, by [autoscaling] of {world.config}, which may be edited now\n"
            f"submit      {own_name()} task submit --local --prompt 'a lighthouse at dusk' --wait\n"
            f"look        {own_name()} fleet watch --local; {own_name()} fleet why --local\n"
            f"logs        {folder / 'fleet.log'}, {folder / 'fleet'}/*/output\n"
            f"stop        Ctrl-C\n",
            err=True,
        )
        return lead_until_told(parts, make_leader(parts, name="local"), as_json=False)


def _headline(moment: Moment) -> Text:
    return Text(f"{moment.done} of {moment.sent} tasks done, {moment.elapsed_s:.0f} s", style="bold")


class _Lines:
    """A line whenever the fleet changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: object = None

    def __call__(self, moment: Moment) -> None:
        fleet = moment.fleet
        states = " ".join(line.state for line in fleet.workers) or "none"
        facts = (fleet.target, states)
        if facts != self._last:
            self._last = facts
            self._console.print(
                f"{moment.elapsed_s:4.0f} s  {moment.done:2} of {moment.sent} done  target {fleet.target}  workers: {states}",
                soft_wrap=True,
                highlight=False,
            )
