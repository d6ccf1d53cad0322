"""``sd-scheduler task``: submit, show, cancel and parse tasks, for people and scripts."""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import click

from scheduler.cli.session import Session, open_session
from scheduler.domain.claiming import FINAL
from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task, TaskType
from scheduler.submission import submit
from scheduler.wire.recognise import recognise

REFUSED = 3

config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="Default: $SCHEDULER_CONFIG, else ./conf.ini."
)
local_option = click.option("--local", is_flag=True, help="Talk to the `sd-scheduler local` that runs here.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for machines.")


@click.group("task")
def task_group() -> None:
    """Submit tasks and ask after them.

    \b
    Example:
      sd-scheduler task submit --prompt "a lighthouse at dusk" --wait
    """


@task_group.command("submit")
@config_option
@local_option
@json_option
@click.option("--file", "file", type=click.File("rb"), help="A message in our own format, or - for standard input.")
@click.option("--prompt", help="What to paint; makes a txt2img task, or img2img with --image.")
@click.option(
    "--image", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The picture to start from."
)
@click.option("--checkpoint", help="Title, name, file name or hash of a checkpoint.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A payload field, e.g. --set steps=30.")
@click.option("--id", "task_id", help="The task's id; one is made up otherwise.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit 1 unless it is `completed`.")
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
) -> None:
    """Send one task; prints its id. Exits with 3 when the task is refused.

    \b
    Examples:
      sd-scheduler task submit --local --prompt "a lighthouse at dusk" --set steps=20 --wait
      sd-scheduler task submit --prompt "the same in winter" --image summer.png
      sd-scheduler task submit --file task.json --json
    """
    if (file is None) == (prompt is None):
        raise click.UsageError("give either --file or --prompt")
    if file is not None and (image or checkpoint or settings or task_id):
        raise click.UsageError("--image, --checkpoint, --set and --id go with --prompt; a --file says it all itself")
    message = _read(file) if file else _build(prompt or "", image, checkpoint, settings)
    message.setdefault("task_id", task_id or str(uuid.uuid4()))
    session = open_session(config, local=local)
    # A task that failed and is sent anew still shows its old end for a while.
    old_end = session.records.read([str(message["task_id"])]).get(str(message["task_id"]), {}).get("finished_at")
    try:
        submitted = submit(message, records=session.records, send=session.send)
    except Rejected as error:
        _refuse(error, as_json=as_json)
    if wait:
        old_end = old_end if submitted.was_sent else None
        record = _wait(session, submitted.task_id, old_end=old_end, as_json=as_json)
        _print_record(session, record, as_json=as_json)
        sys.exit(0 if record.get("status") == "completed" else 1)
    if as_json:
        click.echo(json.dumps({"task_id": submitted.task_id, "status": submitted.status, "sent": submitted.was_sent}))
    elif submitted.was_sent:
        click.echo(submitted.task_id)
    else:
        click.echo(f"{submitted.task_id} is already {submitted.status}; nothing was sent")


def _read(file: IO[bytes]) -> dict[str, Any]:
    try:
        message = json.load(file)
    except ValueError as error:
        raise click.UsageError(f"{file.name} is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise click.UsageError(f"{file.name} must hold a JSON object")
    return message


def _build(prompt: str, image: Path | None, checkpoint: str | None, settings: tuple[str, ...]) -> dict[str, Any]:
    payload: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        payload["init_images"] = [base64.b64encode(image.read_bytes()).decode()]
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--set {setting!r} must be KEY=VALUE")
        if key in payload:
            raise click.UsageError(f"--set {setting!r}: {key} is given already")
        try:
            payload[key] = json.loads(text)
        except ValueError:
            payload[key] = text
    kind = TaskType.IMG2IMG if image is not None else TaskType.TXT2IMG
    message: dict[str, Any] = {"task_type": kind.value, "payload": payload}
    return message | ({"checkpoint": checkpoint} if checkpoint else {})


def _wait(session: Session, task_id: str, *, old_end: object, as_json: bool) -> Mapping[str, Any]:
    """Poll the record every second until an end other than `old_end`; a person sees how far it is."""
    shows = sys.stderr.isatty() and not as_json
    while True:
        record = session.records.read([task_id]).get(task_id, {})
        if record.get("status") in FINAL and record.get("finished_at") != old_end:
            break
        if shows:
            click.echo(f"\r{record.get('status', 'missing')} {record.get('progress', 0)} %   ", err=True, nl=False)
        time.sleep(1)
    if shows:
        click.echo("\r                         \r", err=True, nl=False)
    return record


@task_group.command("show")
@config_option
@local_option
@json_option
@click.argument("task_id")
def show_command(config: Path | None, local: bool, as_json: bool, task_id: str) -> None:
    """Show a task's record, with the addresses of its images.

    \b
    Example:
      sd-scheduler task show 6f9619ff-8b86-d011-b42d-00c04fc964ff --json
    """
    session = open_session(config, local=local)
    record = session.records.read([task_id]).get(task_id)
    if record is None:
        click.echo(f"there is no record of task {task_id}", err=True)
        sys.exit(1)
    _print_record(session, record, as_json=as_json)


@task_group.command("cancel")
@config_option
@local_option
@json_option
@click.argument("task_id")
def cancel_command(config: Path | None, local: bool, as_json: bool, task_id: str) -> None:
    """Cancel a task: one that waits at once, one that runs within a sixth of its lease (10 s at most).

    \b
    Example:
      sd-scheduler task cancel 6f9619ff-8b86-d011-b42d-00c04fc964ff
    """
    session = open_session(config, local=local)
    status = session.records.request_cancel(task_id)
    said = {
        "missing": f"there is no record of task {task_id}",
        "processing": "asked for: its worker ends it within a sixth of its lease (10 s at most), unless it is done before",
        "cancelled": "cancelled",
    }.get(status, f"too late: it is {status}")
    if as_json:
        click.echo(json.dumps({"task_id": task_id, "status": status}))
    else:
        click.echo(said)
    sys.exit(0 if status in {"processing", "cancelled"} else 1)


@task_group.command("parse")
@json_option
@click.argument("file", type=click.File("rb"))
def parse_command(as_json: bool, file: IO[bytes]) -> None:
    """Say what a message's body means, or why it would be refused (exit 3).

    \b
    Example:
      echo '{"taskId": "42", "storage": "dynamodb"}' | sd-scheduler task parse -
    """
    try:
        task = recognise(file.read().decode(errors="surrogateescape"))
    except Rejected as error:
        _refuse(error, as_json=as_json)
    if isinstance(task, Task):
        meaning = {
            "format": task.format.value,
            "task_id": task.task_id,
            "task_type": task.task_type.value,
            "runtime": task.runtime,
            "checkpoint": task.checkpoint,
            "prefix": task.prefix,
            "fingerprint": task.fingerprint,
        }
    else:
        meaning = {"format": "predecessor", "task_id": task, "request": "in the table"}
    if as_json:
        click.echo(json.dumps(meaning))
    else:
        for name, value in meaning.items():
            click.echo(f"{name:<12} {'-' if value is None else value}")


def _refuse(error: Rejected, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"error": error.message, "field": error.field}))
    else:
        click.echo(f"refused: {error.message}" + (f" (field {error.field})" if error.field else ""), err=True)
    sys.exit(REFUSED)


def _print_record(session: Session, record: Mapping[str, Any], *, as_json: bool) -> None:
    shown = dict(record)
    if images := shown.get("images"):
        shown["images"] = [{**image, "url": session.address(str(image["key"]))} for image in images]
    if as_json:
        click.echo(json.dumps(shown, default=_plain))
        return
    for name in sorted(shown):
        if name != "images":
            click.echo(f"{name:<14} {json.dumps(shown[name], default=_plain)}")
    for image in shown.get("images", []):
        click.echo(f"image          {image['url']}  {image['width']}x{image['height']}, {image['bytes']} bytes")


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
