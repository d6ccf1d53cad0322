"""``sd-scheduler task fetch``: downloads what came of a task; pictures are proved to be those recorded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import click

from scheduler.cli.failure import Failure
from scheduler.cli.live_line import LiveLine
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.session import load_settings
from scheduler.cli.task_show import find_record, images_of
from scheduler.domain.destinations import S3Address
from scheduler.session import open_session


@click.command("fetch", short_help="Download the pictures of a task.")
@config_option
@local_option
@json_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=".", help="Folder; default: this one.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.argument("task_id")
def fetch_command(  # noqa: PLR0917 - click passes every option
    config: Path | None, local: bool, as_json: bool, out: Path, force: bool, task_id: str
) -> None:
    """Download the pictures of a completed task as TASK_ID-1.png and so on; prints their files.

    The result of an engine that stores it by itself is fetched from there; the record has no checksum of it.

    \b
    Examples:
      sd-scheduler task fetch --local lighthouse
      sd-scheduler task fetch 6f9619ff-8b86-d011-b42d-00c04fc964ff --out pictures --force
    """
    session = open_session(load_settings(config, local=local))
    record = find_record(session, task_id)
    wanted = results({**record, "images": images_of(session, record)}, bucket=session.bucket)
    if not wanted:
        said = f"task {task_id} is {record.get('status')}: it has no pictures"
        raise Failure(said, kind="no-pictures", task_id=task_id, status=record.get("status"))
    files = [out / name for name in file_names(task_id, [result.place.key for result in wanted])]
    if not force and (there := [str(file) for file in files if file.exists()]):
        said = f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} there already; nothing was fetched"
        raise Failure(said, kind="exists", advice="--force overwrites, --out names another folder", files=there)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _fetch_all(session.fetch, wanted, files, as_json=as_json)
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}", kind="disk") from error
    if as_json:
        click.echo(json.dumps({"task_id": task_id, "files": [str(file) for file in files]}))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object to fetch. `sha256` is what the record tells of it, None where the engine stored it by itself."""

    place: S3Address
    sha256: str | None


def results(record: Mapping[str, Any], *, bucket: str) -> list[Wanted]:
    """Return what came of a task: its images, which lie in `bucket`, else what the engine stored wherever it did."""
    if images := record.get("images"):
        return [Wanted(S3Address(bucket=bucket, key=str(one["key"])), str(one.get("sha256", ""))) for one in images]
    scheme, _, place = str(record.get("result_s3_uri") or "").partition("://")
    bucket, _, key = place.partition("/")
    return [Wanted(S3Address(bucket=bucket, key=key), None)] if scheme == "s3" and bucket and key else []


def file_names(task_id: str, keys: list[str]) -> list[str]:
    """Return a plain file name for each key, with the ending that the key has."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", task_id)
    endings = [PurePosixPath(key).suffix for key in keys]
    return [
        f"{stem}-{n}{ending if re.fullmatch(r'[.][A-Za-z0-9]{1,8}', ending) else ''}"
        for n, ending in enumerate(endings, start=1)
    ]


def _fetch_all(
    fetch: Callable[[S3Address], bytes], results: Sequence[Wanted], files: Sequence[Path], *, as_json: bool
) -> None:
    line = LiveLine.for_people(as_json=as_json)
    for n, (result, file) in enumerate(zip(results, files, strict=True), start=1):
        key = result.place.key
        line.say(f"fetching {n} of {len(files)}: {key}")
        try:
            data = fetch(result.place)
        finally:
            line.clear()
        if result.sha256 is not None and hashlib.sha256(data).hexdigest() != result.sha256:
            raise Failure(f"{key} holds another picture than the record tells of", kind="changed")
        part = file.with_name(file.name + ".part")
        part.write_bytes(data)
        part.replace(file)
        if not as_json:
            click.echo(str(file))
