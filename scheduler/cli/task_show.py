"""``sd-scheduler task show``: a task's record for a person, or as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from scheduler.cli.failure import Failure
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.record_view import STYLES, lines, plain, result_lines
from scheduler.cli.session import load_settings
from scheduler.domain.destinations import S3Address
from scheduler.session import Session, open_session


@click.command("show", short_help="Show a task's record.")
@config_option
@local_option
@json_option
@click.argument("task_id")
def show_command(config: Path | None, local: bool, as_json: bool, task_id: str) -> None:
    """Show a task's record, with the addresses of its images; times are local, with --json epoch seconds.

    \b
    Example:
      sd-scheduler task show 6f9619ff-8b86-d011-b42d-00c04fc964ff --json
    """
    session = open_session(load_settings(config, local=local))
    print_record(session, find_record(session, task_id), as_json=as_json)


def find_record(session: Session, task_id: str) -> Mapping[str, Any]:
    """Return the record. Raises Failure when there is none, Unavailable."""
    record = session.records.read([task_id]).get(task_id)
    if record is None:
        raise no_record(task_id)
    return record


def images_of(session: Session, record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the images of a record, from the list that it points to when there are too many. Raises Unavailable."""
    key = record.get("output_key")
    if not key:
        return record.get("images") or []
    listed: list[Mapping[str, Any]] = json.loads(session.fetch(S3Address(bucket=session.bucket, key=key)))["images"]
    return listed


def no_record(task_id: str, *, advice: str | None = None) -> Failure:
    """Return the failure that a task is not known, with what may be done about it."""
    return Failure(f"there is no record of task {task_id}", kind="missing", advice=advice, task_id=task_id)


def print_record(session: Session, record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a record with the addresses of its results."""
    shown = dict(record)
    if images := images_of(session, record):
        shown["images"] = [{**image, "url": session.address(str(image["key"]))} for image in images]
    if as_json:
        click.echo(json.dumps(shown, default=plain))
        return
    for line in lines(shown, now_s=time.time()):
        is_status = line.startswith("status ")
        click.echo(click.style(line, fg=STYLES.get(str(shown["status"]))) if is_status else line)
    for line in result_lines(shown):
        click.echo(line)
