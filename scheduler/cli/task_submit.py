"""``sd-scheduler task submit``: checks a task, records and sends it, and may wait for its end."""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Mapping
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
from scheduler.domain.routing import Routes
from scheduler.domain.task import Task
from scheduler.engines.build import build_engines
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
    if (file is None) == (prompt is None):
        raise click.UsageError("give either --file or --prompt")
    if file is not None and (image or checkpoint or settings or task_id):
        raise click.UsageError("--image, --checkpoint, --set and --id go with --prompt; a --file says it all itself")
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    configured = load_settings(config, local=local)
    max_pixels = configured.scheduler.max_pixels
    message = (
        read_message(file)
        if file
        else build_message(prompt or "", image=image, checkpoint=checkpoint, settings=settings, max_pixels=max_pixels)
    )
    if file is None or own.looks_like(message):
        message.setdefault("task_id", task_id or str(uuid.uuid4()))
    task = _task_in(message)
    inputs = JudgedInputs(configured)
    warnings = check(task, routes=Routes(build_engines(configured, inputs)), inputs=inputs, max_pixels=max_pixels)
    if wait or not as_json:
        for warning in warnings:
            click.secho(f"warning: {warning}", err=True, fg="yellow")
    session = open_session(configured)
    look_up = _look_up(task.task_id, config=config, local=local)
    # A task that failed and is sent anew still shows its old end for a while.
    old_end = _look(session, task.task_id).get("finished_at")
    submitted = _submit(session, message, task.task_id, look_up=look_up)
    if wait:
        line = LiveLine.for_people(as_json=as_json)
        waiting = EndWait(submitted.task_id, lambda: _look(session, submitted.task_id), look_up=look_up, line=line)
        record = waiting.end(old_end=old_end if submitted.was_sent else None, timeout_s=timeout_s)
        print_record(session, record, as_json=as_json)
        sys.exit(0 if record.get("status") == "completed" else FAILED)
    _tell(submitted, warnings, as_json=as_json)


def _task_in(message: Mapping[str, Any]) -> Task:
    found = recognise(json.dumps(message))
    if isinstance(found, Task):
        return found
    raise not_the_task(found)


def _submit(session: Session, message: Mapping[str, Any], task_id: str, *, look_up: str) -> Submitted:
    try:
        return submit(message, records=session.records, send=session.send)
    except KeyboardInterrupt:
        raise Failure(
            "interrupted; the task may have been sent",
            kind="interrupted",
            code=INTERRUPTED,
            advice=f"look it up: {look_up}",
            task_id=task_id,
        ) from None


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
