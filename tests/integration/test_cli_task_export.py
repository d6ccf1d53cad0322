"""`sd-scheduler task export-trace` over an emulated table: what it writes is what `simulate --trace` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from aws_servers import Cloud
from click.testing import CliRunner, Result

from scheduler.cli.root import cli
from scheduler.simulate.model import Arrival
from scheduler.simulate.trace import read_trace
from scheduler.stores.done_tasks import pages
from scheduler.stores.expressions import encode

SENT_AT_S = 1_700_000_000


class Place:
    """A table, and the command run for it."""

    def __init__(self, cloud: Cloud, folder: Path, *, key_name: str = "task_id") -> None:
        self.dynamodb = cloud.clients.dynamodb
        self.folder, self.key_name = folder, key_name
        self.table = cloud.table(key_name=key_name)
        self.environ = {
            **cloud.environ,
            "SCHEDULER_AWS_AWS_REGION": "us-east-1",
            "SCHEDULER_AWS_SQS_QUEUE_URL": "tasks",
            "SCHEDULER_AWS_DYNAMODB_TABLE": self.table,
            "SCHEDULER_AWS_S3_BUCKET": "pictures",
        }

    def put(self, task_id: str, **attributes: Any) -> None:
        item = {name: encode(value) for name, value in {self.key_name: task_id, **attributes}.items()}
        self.dynamodb.put_item(TableName=self.table, Item=item)

    def done(self, number: int, **others: Any) -> None:
        told = {"status": "completed", "created_at": SENT_AT_S + 60 * number, "generate_ms": 1500 + number}
        self.put(f"task-{number}", **told | others)

    def run(self, *words: str, code: int = 0) -> Result:
        only: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("AWS_", "SCHEDULER_"))}
        done = CliRunner(env={**only, **self.environ}).invoke(cli, ["task", "export-trace", *words])
        assert done.exit_code == code, (done.output, done.exception)
        return done


@pytest.fixture
def place(moto: Cloud, tmp_path: Path) -> Place:
    return Place(moto, tmp_path)


def test_what_is_written_is_a_trace_of_what_was_done(place: Place) -> None:
    image = {"key": "tasks/1/1.png", "bytes": 8}
    place.done(0, checkpoint='sd, "turbo".safetensors', images=[image, image])
    place.done(1, steps=30, images=[image])
    place.done(2)
    file = place.folder / "requests.csv"
    done = place.run("-o", str(file))
    assert done.stdout == ""
    assert done.stderr.startswith("3 tasks of 3 records; ")
    assert read_trace(file) == [
        Arrival(0.0, 1.5, 'sd, "turbo".safetensors'),
        Arrival(60.0, 1.501),
        Arrival(120.0, 1.502),
    ]
    simulated = CliRunner().invoke(cli, ["simulate", "--trace", str(file), "--policy", "backlog", "--json"])
    assert json.loads(simulated.stdout)["demand"]["tasks"] == 3


def test_what_no_gpu_worked_for_is_left_out(place: Place) -> None:
    place.done(0)
    place.put("waits", status="pending", created_at=SENT_AT_S)
    place.put("failed", status="failed", created_at=SENT_AT_S, error_message="no such checkpoint")
    place.done(1, generate_ms=0)
    place.done(2, created_at=SENT_AT_S * 1000)
    place.done(3, created_at="yesterday")
    done = place.run()
    assert done.stdout.splitlines() == ["t,service_s,model,steps,images", f"{SENT_AT_S},1.5,,,"]
    assert done.stderr.startswith("1 tasks of 6 records; ")


def test_a_table_of_many_megabytes_is_read_to_its_end(place: Place) -> None:
    for number in range(12):
        place.done(number, prompt="x" * 380_000)
    read = list(pages(place.dynamodb, place.table))
    assert len(read) > 2
    assert sum(page.records for page in read) == 12
    times_s = {task.sent_at_s for page in read for task in page.tasks}
    assert times_s == {SENT_AT_S + 60 * number for number in range(12)}


def test_a_table_with_the_predecessors_key_is_read_too(moto: Cloud, tmp_path: Path) -> None:
    place = Place(moto, tmp_path, key_name="taskId")
    place.done(0)
    assert len(place.run().stdout.splitlines()) == 2


def test_json_goes_beside_a_file_only(place: Place) -> None:
    place.done(0)
    file = place.folder / "requests.csv"
    told = json.loads(place.run("-o", str(file), "--json").stdout)
    assert (told["file"], told["tasks"], told["records"]) == (str(file), 1, 1)
    assert json.loads(place.run("--json", code=2).stdout)["kind"] == "usage"


def test_a_table_that_is_not_there_leaves_what_was_exported_before(place: Place) -> None:
    place.dynamodb.delete_table(TableName=place.table)
    file = place.folder / "requests.csv"
    file.write_text("t,service_s\n0,1\n")
    assert f"table {place.table}" in place.run("-o", str(file), code=1).stderr
    assert [path.read_text() for path in place.folder.iterdir()] == ["t,service_s\n0,1\n"]


def test_a_file_that_cannot_be_written_is_told(place: Place) -> None:
    assert "/nowhere/requests.csv cannot be written: " in place.run("-o", "/nowhere/requests.csv", code=1).stderr
