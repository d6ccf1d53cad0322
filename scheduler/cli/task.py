"""``sd-scheduler task``: submit, show, fetch, cancel, parse and export tasks, for people and scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import click

from scheduler.cli.failure import Failure
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.session import load_settings
from scheduler.cli.task_export import export_command
from scheduler.cli.task_fetch import fetch_command
from scheduler.cli.task_meaning import in_words, meaning_of
from scheduler.cli.task_show import no_record, show_command
from scheduler.cli.task_submit import submit_command
from scheduler.domain.keys import TASK_ID
from scheduler.session import open_session
from scheduler.wire.fields import ID_RULE, wrong
from scheduler.wire.recognise import recognise


@click.group("task")
def task_group() -> None:
    """Submit tasks, ask after them, fetch their pictures.

    \b
    Examples:
      sd-scheduler task submit --id lighthouse --prompt "a lighthouse at dusk" --wait
      sd-scheduler task fetch lighthouse
    """


@task_group.command("cancel", short_help="Cancel a task that waits or runs.")
@config_option
@local_option
@json_option
@click.option(
    "--unseen", is_flag=True, help="Also a task without a record: sent to the queue, and received by nobody yet."
)
@click.argument("task_id")
def cancel_command(config: Path | None, local: bool, as_json: bool, unseen: bool, task_id: str) -> None:
    """Cancel a task: one that waits at once, one that runs within a sixth of its lease (10 s at most).

    Exits with 0 when it is cancelled, now or before, or when its worker was asked to end it (with --json,
    cancel_requested tells the two apart); with 1 when it has another end already, or is not known.

    \b
    Examples:
      sd-scheduler task cancel 6f9619ff-8b86-d011-b42d-00c04fc964ff
      sd-scheduler task cancel order-77 --unseen
    """
    if unseen and not TASK_ID.fullmatch(task_id):
        raise wrong("task_id", task_id, ID_RULE)
    session = open_session(load_settings(config, local=local))
    status = session.records.request_cancel(task_id, unseen=unseen)
    if status == "missing":
        advice = "one that was sent to the queue has none until a worker takes it: --unseen cancels it before"
        raise no_record(task_id, advice=advice)
    if status not in {"processing", "cancelled"}:
        raise Failure(f"too late: task {task_id} is {status}", kind="too-late", task_id=task_id, status=status)
    is_asked_for = status == "processing"
    if as_json:
        click.echo(json.dumps({"task_id": task_id, "status": status, "cancel_requested": is_asked_for}))
    elif is_asked_for:
        click.echo("asked for: its worker ends it within a sixth of its lease (10 s at most), unless it is done before")
    else:
        click.echo("cancelled")


@task_group.command("parse", short_help="Say what a message's body means.")
@json_option
@click.argument("file", type=click.File("rb"))
def parse_command(as_json: bool, file: IO[bytes]) -> None:
    """Say what a message's body means, or why it would be refused (exit 3); - reads standard input.

    Whether an engine takes the payload is not looked at here: `task submit` does before it sends, and the worker. A
    reference is shown as one (format predecessor), and so is a pointer to a body in S3 (claim-check).

    \b
    Example:
      echo '{"taskId": "42", "storage": "dynamodb"}' | sd-scheduler task parse -
      sd-scheduler task parse refused.json --json
    """
    meaning = meaning_of(recognise(file.read().decode(errors="surrogateescape")))
    if as_json:
        click.echo(json.dumps(meaning))
    else:
        for name, value in meaning.items():
            click.echo(f"{name:<12} {in_words(value)}")


task_group.add_command(submit_command)
task_group.add_command(show_command)
task_group.add_command(fetch_command)
task_group.add_command(export_command)
