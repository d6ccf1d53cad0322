"""``sd-scheduler task submit``: checks a task, records and sends it, and may wait for its end."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import click

from scheduler.cli.failure import FAILED, INTERRUPTED, Failure
from scheduler.cli.live_line import LiveLine
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.session import load_settings
from scheduler.cli.task_check import check
from scheduler.cli.task_request import build_message, not_the_task, read_message
from scheduler.cli.task_show import print_record
from scheduler.cli.task_wait import EndWait
from scheduler.config import Settings
from scheduler.domain.errors import SchedulerError
from scheduler.domain.task import Task
from scheduler.fleet import capacity_keeper
from scheduler.observe import logging
from scheduler.session import Session, open_session
from scheduler.stores.inputs import JudgedInputs
from scheduler.submission import Submitted, submit
from scheduler.wire import own
from scheduler.wire.recognise import recognise


@click.command("submit")
@config_option
@local_option
@json_option
@click.option(
    "--file",
    "file",
    type=click.File("rb"),
    help="A message in any format that holds the task, or - for standard input.",
)
@click.option("--prompt", help="What to paint; makes a txt2img task, or img2img with --image.")
@click.option(
    "--image", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The picture to start from."
)
@click.option("--checkpoint", help="Title, name, file name or hash of a checkpoint.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A payload field, e.g. --set steps=30.")
@click.option("--id", "task_id", help="The task's id; one is made up otherwise.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it is `completed`.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Wait no longer than so; the task goes on, and the exit code is 1.",
)
def submit_command(  # noqa: PLR0917 - click passes every option
    config: Path | None,
    local: bool,
    as_json: bool,
    file: IO[bytes] | None,
    prompt: str | None,
    image: Path | None,
    checkpoint: str | None,
    settings: tuple[str, ...],
    task_id: str | None,
    wait: bool,
    timeout_s: float | None,
) -> None:
    """Send one task; prints its id. Exits with 3 when the task is refused, and then nothing was sent.

    \b
    Examples:
      sd-scheduler task submit --local --prompt "a lighthouse at dusk" --set steps=20 --wait --timeout 60
      sd-scheduler task submit --prompt "the same in winter" --image summer.png
      sd-scheduler task submit --file task.json --json
    """
    options = {"image": image, "checkpoint": checkpoint, "settings": settings}
    if (file is None) == (prompt is None):
        raise click.UsageError("give either --file or --prompt")
    if file is not None and (task_id or any(options.values())):
        raise click.UsageError("--image, --checkpoint, --set and --id go with --prompt; a --file says it all itself")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    configured = load_settings(config, local=local)
    max_pixels = configured.scheduler.max_pixels
    message = _message(file, prompt, task_id, options, max_pixels=max_pixels)
    task = _task_in(message)
    warnings = check(task, served=configured.served, inputs=JudgedInputs(configured), max_pixels=max_pixels)
    is_said = wait or not as_json
    _warn(warnings if is_said else [])
    session = open_session(configured)
    look_up = _look_up(task.task_id, config=config, local=local)
    # A task that failed and is sent anew still shows its old end for a while.
    old_end = _look(session, task.task_id).get("finished_at")
    submitted, late_warnings = _submit(configured, session, message, task.task_id, look_up=look_up)
    _warn(late_warnings if is_said else [])
    if wait:
        line = LiveLine.for_people(as_json=as_json)
        waiting = EndWait(submitted.task_id, lambda: _look(session, submitted.task_id), look_up=look_up, line=line)
        record = waiting.end(old_end=old_end if submitted.was_sent else None, timeout_s=timeout_s)
        print_record(session, record, as_json=as_json)
        sys.exit(0 if record.get("status") == "completed" else FAILED)
    _tell(submitted, [*warnings, *late_warnings], as_json=as_json)


def _message(
    file: IO[bytes] | None, prompt: str | None, task_id: str | None, options: Mapping[str, Any], *, max_pixels: int
) -> dict[str, Any]:
    """Return the message that was given, or is made of the options that go with a prompt."""
    message = read_message(file) if file else build_message(prompt or "", **options, max_pixels=max_pixels)
    if file is None or own.looks_like(message):
        message.setdefault("task_id", task_id or str(uuid.uuid4()))
    return message


def _task_in(message: Mapping[str, Any]) -> Task:
    found = recognise(json.dumps(message))
    if isinstance(found, Task):
        return found
    raise not_the_task(found)


def _submit(
    configured: Settings, session: Session, message: Mapping[str, Any], task_id: str, *, look_up: str
) -> tuple[Submitted, list[str]]:
    """Return what became of the message, and warnings."""
    try:
        submitted = submit(message, records=session.records, send=session.send)
        return submitted, _have_a_worker(configured) if submitted.was_sent else []
    except KeyboardInterrupt:
        raise Failure(
            "interrupted; the task may have been sent",
            kind="interrupted",
            code=INTERRUPTED,
            advice=f"look it up: {look_up}",
            task_id=task_id,
        ) from None


def _have_a_worker(settings: Settings) -> list[str]:
    """Let the fleet grow if it must for what was sent; return warnings, for the task is in the queue whatever comes."""
    if not settings.autoscaling.enabled:
        return []
    logging.configure(secrets=settings.secrets, stream=sys.stderr)
    try:
        outcome = capacity_keeper(settings, host=f"submit@{socket.gethostname()}").ensure_capacity()
    except SchedulerError as error:
        return [f"the fleet could not be looked at, and grows once somebody else does: {error}"]
    if outcome is not None and outcome.leads and outcome.failed_steps:
        return [f"the fleet was looked at, but did not take: {', '.join(outcome.failed_steps)}"]
    if outcome is not None and outcome.leads and outcome.look.is_blind and outcome.book is not None:
        return [f"the fleet is left as it is: {outcome.book.hold}"]
    return []


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        click.secho(f"warning: {warning}", err=True, fg="yellow")


def _look(session: Session, task_id: str) -> Mapping[str, Any]:
    return session.records.read([task_id]).get(task_id, {})


def _look_up(task_id: str, *, config: Path | None, local: bool) -> str:
    """Return the command that shows the task later."""
    where = ["--local"] if local else ["-c", str(config)] if config else []
    return shlex.join(["sd-scheduler", "task", "show", *where, task_id])


def _tell(submitted: Submitted, warnings: list[str], *, as_json: bool) -> None:
    if as_json:
        told = {"task_id": submitted.task_id, "status": submitted.status, "sent": submitted.was_sent}
        click.echo(json.dumps(told | {"warnings": warnings}))
    elif submitted.was_sent:
        click.echo(submitted.task_id)
    else:
        click.echo(f"{submitted.task_id} is already {submitted.status}; nothing was sent")
