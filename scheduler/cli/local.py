"""``sd-scheduler local``: everything on this machine, without an AWS account and without a GPU."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from scheduler.app import Scheduler
from scheduler.cli.fleet_demo import keep_local_fleet, run_fleet_demo
from scheduler.cli.record_view import STYLES
from scheduler.cli.session import own_name
from scheduler.config import load
from scheduler.local import contact_sheet, demo
from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.hangup import end_at_hangup
from scheduler.local.world import LocalWorld
from scheduler.observe import logging
from scheduler.session import open_session

FOLDER = Path(".local")
DEMO_LIMIT_S = 180.0


@click.command("local", short_help="Run everything on this machine: no AWS, no GPU.")
@click.option("--demo", "is_demo", is_flag=True, help="Run a dozen tasks, show what came of them, and end.")
@click.option("--demo-fleet", "is_fleet_demo", is_flag=True, help="Show a fleet grow with a burst and go when idle.")
@click.option("--fleet", "is_fleet", is_flag=True, help="Keep a fleet of worker processes in place of the one daemon.")
@click.option("--seconds-per-step", default=0.05, show_default=True, help="How slow the stand-in engine is.")
@click.option("--switch-seconds", default=1.0, show_default=True, help="How long it takes to load a checkpoint.")
@click.option("--health-port", default=0, help="Where /health answers; default: any free port.")
def local_command(
    *,
    is_demo: bool,
    is_fleet_demo: bool,
    is_fleet: bool,
    seconds_per_step: float,
    switch_seconds: float,
    health_port: int,
) -> None:
    """Run the scheduler with moto as AWS and a stand-in as the SD WebUI, all on loopback, state under .local/.

    The stand-in paints a picture from prompt and seed; it is no Stable Diffusion, but it behaves like its server. To
    try [inputs] and [notify], stop it, edit them in .local/conf.ini, and start it again: it keeps these two sections.

    \b
    Examples:
      sd-scheduler local            and, in another terminal in the same folder:
      sd-scheduler task submit --local --prompt "a lighthouse at dusk" --wait
    \b
      sd-scheduler local --demo     submits a dozen tasks itself; exit 0 if all went as it should
      sd-scheduler local --demo-fleet
    \b
      sd-scheduler local --fleet    and, in another terminal in the same folder:
      sd-scheduler fleet show --local
    """
    end_at_hangup()
    world = LocalWorld(FOLDER, seconds_per_step=seconds_per_step, switch_s=switch_seconds, health_port=health_port)
    if is_fleet_demo:
        with world:
            sys.exit(run_fleet_demo(world, FOLDER))
    if is_fleet:
        with world:
            sys.exit(keep_local_fleet(world, FOLDER))
    with world, contextlib.ExitStack() as stack:
        settings = load(world.config, os.environ)
        if is_demo:
            log_file = stack.enter_context((FOLDER / "scheduler.log").open("w"))
            logging.configure(secrets=settings.secrets, stream=log_file)
        else:
            logging.configure(secrets=settings.secrets)
        scheduler = Scheduler(settings)
        if not is_demo:
            _greet(world, scheduler)
            sys.exit(scheduler.run())
        verdict: list[int] = []
        threading.Thread(target=_stop_after, args=(lambda: verdict.append(_demo(world)),), daemon=True).start()
        code = scheduler.run()
    sys.exit(verdict[0] if verdict else code or 130)


def _greet(world: LocalWorld, scheduler: Scheduler) -> None:
    host, port = scheduler.health_address
    click.echo(
        f"AWS (moto)       {world.endpoint}\n"
        f"WebUI stand-in   {world.engine.base_url}\n"
        f"ComfyUI stand-in {world.comfy.base_url}\n"
        f"job API stand-in {world.jobs.base_url if world.jobs else ''}\n"
        f"health           http://{host}:{port}/health\n"
        f"configuration    {world.config}: [inputs] and [notify] are kept when it starts again\n"
        f"submit           {own_name()} task submit --local --prompt 'a lighthouse at dusk' --wait\n"
        f"stop             Ctrl-C\n",
        err=True,
    )


def _stop_after(act: Callable[[], object]) -> None:
    try:
        act()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _demo(world: LocalWorld) -> int:
    """Run the demo, show it, and return the exit code."""
    console = Console()
    session = open_session(load(world.config, os.environ))
    tasks = demo.plan(str(os.getpid()), CHECKPOINTS)
    console.print(f"Submitting {len(tasks)} tasks: {len(tasks) - 1} good, 1 deliberately bad.")
    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, refresh_per_second=8))

            def show(records: Mapping[str, Mapping[str, Any]]) -> None:
                live.update(_progress_table(tasks, records))

        else:
            show = _Lines(console)
        outcomes = demo.run(
            tasks,
            session,
            fetch=world.fetch,
            folder=world.clear_pictures(),
            show=show,
            limit_s=DEMO_LIMIT_S,
        )
    sheet = FOLDER / "contact-sheet.png"
    pictures = [(file.stem, file) for outcome in outcomes for file in outcome.files]
    contact_sheet.write(pictures, sheet)
    _print_outcomes(console, outcomes, session.address)
    wrong = [outcome.task.task_id for outcome in outcomes if not outcome.is_as_meant]
    console.print(f"{len(pictures)} pictures in {FOLDER / 'images'}, all on one sheet: {sheet}", soft_wrap=True)
    if wrong:
        console.print(
            f"[red]not as meant: {', '.join(wrong)}[/red]; the log is {FOLDER / 'scheduler.log'}", soft_wrap=True
        )
        return 1
    console.print("[green]All good tasks completed, and the bad one failed with its reason.[/green]")
    return 0


class _Lines:
    """Progress for a pipe: a line whenever a task's status changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, str] = {}

    def __call__(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        for task_id, record in sorted(records.items()):
            status = str(record.get("status"))
            if self._seen.get(task_id) != status:
                self._seen[task_id] = status
                self._console.print(f"{task_id}: {status}", soft_wrap=True, highlight=False)


def _progress_table(tasks: Sequence[demo.DemoTask], records: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("task", "status", "progress")
    for task in tasks:
        record = records.get(task.task_id, {})
        status = str(record.get("status", "pending"))
        percent = 100 if status == "completed" else int(record.get("progress", 0))
        table.add_row(
            task.task_id, f"[{STYLES.get(status, 'dim')}]{status}[/]", f"{'█' * (percent // 5):<20} {percent:3d} %"
        )
    return table


def _print_outcomes(console: Console, outcomes: Sequence[demo.Outcome], address: Callable[[str], str]) -> None:
    """Print what came of each task, why it failed, and where each picture is; boxes and colour for a person only."""
    rows = [_cells(outcome) for outcome in outcomes]
    if console.is_terminal:
        table = Table(Column("task", no_wrap=True), Column("status", no_wrap=True), title="What came of them (seconds)")
        for column in ("queued", "generating", "uploading", "pictures"):
            table.add_column(column, justify="right")
        for task_id, status, *cells in rows:
            table.add_row(task_id, f"[{STYLES.get(status, 'dim')}]{status}[/]", *cells)
        console.print(table)
    else:
        console.print("task status s-queued s-generating s-uploading pictures")
        for row in rows:
            console.print(" ".join(row), soft_wrap=True, highlight=False)
    for outcome in outcomes:
        if "error_message" in outcome.record:
            said = f"{outcome.task.task_id} failed: {outcome.record['error_message']}"
            console.print(said, soft_wrap=True, highlight=False, markup=False)
        for image, file in zip(outcome.record.get("images", []), outcome.files, strict=True):
            console.print(f"{address(str(image['key']))}  {file}", soft_wrap=True, highlight=False)


def _cells(outcome: demo.Outcome) -> list[str]:
    record = outcome.record
    seconds = [
        f"{int(record[name]) / 1000:.1f}" if name in record else "-"
        for name in ("queued_ms", "generate_ms", "store_ms")
    ]
    return [outcome.task.task_id, str(record.get("status", "missing")), *seconds, str(len(outcome.files))]
