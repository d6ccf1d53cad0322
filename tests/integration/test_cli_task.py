"""`sd-scheduler task` against an emulated AWS: submit, show and fetch, for people, for pipes and as JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aws_servers import NOWHERE, Cloud, aws_environ, unique
from click.testing import CliRunner, Result

from scheduler.cli.root import cli

PICTURES = [b"\x89PNG one", b"\x89PNG two"]


class Place:
    """A queue, a table, a bucket, and commands run for them in `folder`."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.clients = cloud.clients
        self.folder = folder
        self.queue, self.table, self.bucket = cloud.queue(), cloud.table(), cloud.bucket()
        self.environ = {
            **cloud.environ,
            "SCHEDULER_AWS_AWS_REGION": "us-east-1",
            "SCHEDULER_AWS_SQS_QUEUE_URL": self.queue.name,
            "SCHEDULER_AWS_DYNAMODB_TABLE": self.table,
            "SCHEDULER_AWS_S3_BUCKET": self.bucket,
        }

    def run(self, *words: str, **environ: str) -> Result:
        only: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("AWS_", "SCHEDULER_"))}
        with contextlib.chdir(self.folder):
            return CliRunner(env={**only, **self.environ, **environ}).invoke(cli, ["task", *words])

    def sent(self) -> list[dict[str, Any]]:
        """Take what lies in the queue."""
        found = self.clients.sqs.receive_message(QueueUrl=self.queue.url, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in found.get("Messages", [])]

    def records(self) -> int:
        return self.clients.dynamodb.scan(TableName=self.table, ConsistentRead=True)["Count"]

    def complete(self, task_id: str, pictures: list[bytes]) -> None:
        """Write what a worker would have: the pictures, and a record that tells of them."""
        images: list[Any] = []
        for n, data in enumerate(pictures, start=1):
            key = f"tasks/{task_id}/{n}.png"
            self.clients.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
            digest = hashlib.sha256(data).hexdigest()
            numbers = {"bytes": len(data), "width": 8, "height": 8}
            shown = {name: {"N": str(number)} for name, number in numbers.items()}
            images.append({"M": {"key": {"S": key}, "sha256": {"S": digest}, **shown}})
        times: dict[str, Any] = {name: {"N": "1700000000"} for name in ("created_at", "finished_at")}
        item = {"task_id": {"S": task_id}, "status": {"S": "completed"}, "images": {"L": images}, **times}
        self.clients.dynamodb.put_item(TableName=self.table, Item=item)


@pytest.fixture
def place(moto: Cloud, tmp_path: Path) -> Place:
    return Place(moto, tmp_path)


def test_a_task_is_sent_and_its_id_is_all_that_is_printed(place: Place) -> None:
    done = place.run("submit", "--prompt", "a fox", "--set", "steps=5", "--id", "fox")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "fox\n", "")
    (message,) = place.sent()
    assert (message["task_id"], message["payload"]) == ("fox", {"prompt": "a fox", "steps": 5})


def test_a_slip_is_warned_about_and_sent_all_the_same(place: Place) -> None:
    done = place.run("submit", "--prompt", "a fox", "--set", "stepz=5")
    assert done.exit_code == 0
    assert "stepz" in done.stderr
    assert "did you mean steps?" in done.stderr
    as_json = place.run("submit", "--prompt", "a fox", "--set", "stepz=5", "--json")
    assert as_json.stderr == ""
    assert "steps" in json.loads(as_json.stdout)["warnings"][0]
    assert len(place.sent()) + len(place.sent()) == 2


@pytest.mark.parametrize("wrong", [["--set", "steps=0"], ["--set", "width=wide"], ["--image", "notes.txt"]])
def test_what_cannot_be_painted_is_refused_before_anything_is_sent(place: Place, wrong: list[str]) -> None:
    (place.folder / "notes.txt").write_text("no picture")
    done = place.run("submit", "--prompt", "a fox", *wrong)
    assert done.exit_code == 3
    assert done.stderr.startswith("refused: ")
    assert wrong[1].partition("=")[0] in done.stderr
    as_json = place.run("submit", "--prompt", "a fox", *wrong, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["kind"]) == (3, "rejected")
    assert (place.records(), place.sent()) == (0, [])


def test_a_refusal_needs_no_aws(place: Place) -> None:
    done = place.run("submit", "--prompt", "x", "--set", "steps=0", AWS_ENDPOINT_URL=NOWHERE)
    assert done.exit_code == 3


def test_what_no_worker_here_serves_is_warned_about(place: Place) -> None:
    (place.folder / "p.json").write_text('{"task_id": "p", "task_type": "pipeline", "payload": {}}')
    done = place.run("submit", "--file", "p.json")
    assert (done.exit_code, done.stdout) == (0, "p\n")
    assert "may wait for ever" in done.stderr


def test_waiting_ends_with_the_record_or_the_timeout(place: Place) -> None:
    done = place.run("submit", "--prompt", "x", "--id", "slow", "--wait", "--timeout", "0.2")
    assert done.exit_code == 1
    assert "still pending" in done.stderr
    assert "sd-scheduler task show slow" in done.stderr
    place.complete("there", PICTURES)
    again = place.run("submit", "--prompt", "x", "--id", "there", "--wait", "--timeout", "60")
    assert (again.exit_code, again.stdout.split()[:2]) == (0, ["status", "completed"])


def test_a_task_that_is_not_there_is_a_failure_in_both_ways(place: Place) -> None:
    for words in (["show", "nope"], ["fetch", "nope"], ["cancel", "nope"]):
        done = place.run(*words)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines()[0] == "error: there is no record of task nope"
        as_json = place.run(*words, "--json")
        assert (as_json.exit_code, as_json.stderr) == (1, "")
        told = json.loads(as_json.stdout)
        assert (told["ok"], told["kind"], told["task_id"]) == (False, "missing", "nope")


def test_show_says_the_status_first_and_where_the_pictures_are(place: Place) -> None:
    place.complete("t", PICTURES)
    lines = place.run("show", "t").stdout.splitlines()
    assert lines[0].split() == ["status", "completed"]
    assert any(line.startswith("created_at") and "2023-11-1" in line and "ago" in line for line in lines)
    assert lines[-1].split()[:2] == ["image", f"s3://{place.bucket}/tasks/t/2.png"]
    record = json.loads(place.run("show", "t", "--json").stdout)
    assert (record["created_at"], len(record["images"])) == (1_700_000_000, 2)


def test_fetch_brings_the_pictures_and_prints_their_files(place: Place) -> None:
    place.complete("t", PICTURES)
    done = place.run("fetch", "t", "--out", "some/folder")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "some/folder/t-1.png\nsome/folder/t-2.png\n"
    assert [(place.folder / name).read_bytes() for name in done.stdout.split()] == PICTURES
    assert len(list((place.folder / "some/folder").iterdir())) == 2


def test_images_that_are_too_many_for_the_record_are_shown_and_fetched_all_the_same(place: Place) -> None:
    place.complete("t", PICTURES)
    images = json.loads(place.run("show", "t", "--json").stdout)["images"]
    listed = json.dumps({"images": [{name: each[name] for name in each if name != "url"} for each in images]})
    place.clients.s3.put_object(Bucket=place.bucket, Key="tasks/t/images.json", Body=listed.encode())
    place.clients.dynamodb.update_item(
        TableName=place.table,
        Key={"task_id": {"S": "t"}},
        UpdateExpression="REMOVE images SET output_key = :key",
        ExpressionAttributeValues={":key": {"S": "tasks/t/images.json"}},
    )
    assert json.loads(place.run("show", "t", "--json").stdout)["images"] == images
    assert place.run("fetch", "t").stdout == "t-1.png\nt-2.png\n"


def test_what_an_engine_stored_itself_is_shown_and_fetched_from_where_it_lies(place: Place, moto: Cloud) -> None:
    elsewhere = moto.bucket()
    place.clients.s3.put_object(Bucket=elsewhere, Key="results/a.webp", Body=PICTURES[0])
    uri = f"s3://{elsewhere}/results/a.webp"
    item: Any = {"task_id": {"S": "t"}, "status": {"S": "completed"}, "result_s3_uri": {"S": uri}}
    place.clients.dynamodb.put_item(TableName=place.table, Item=item)

    assert place.run("show", "t").stdout.splitlines()[-1].split() == ["result", uri]
    done = place.run("fetch", "t")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "t-1.webp\n", "")
    assert (place.folder / "t-1.webp").read_bytes() == PICTURES[0]
    assert json.loads(place.run("fetch", "t", "--json").stdout)["kind"] == "exists"
    gone: Any = item | {"result_s3_uri": {"S": f"s3://{elsewhere}/results/gone.png"}}
    place.clients.dynamodb.put_item(TableName=place.table, Item=gone)
    assert "results/gone.png" in place.run("fetch", "t").stderr


@pytest.mark.parametrize("uri", ["https://example.com/a.png", "s3://", "s3://bucket", "s3://bucket/"])
def test_what_is_no_object_of_s3_is_no_result_to_fetch(place: Place, uri: str) -> None:
    item: Any = {"task_id": {"S": "t"}, "status": {"S": "completed"}, "result_s3_uri": {"S": uri}}
    place.clients.dynamodb.put_item(TableName=place.table, Item=item)
    assert json.loads(place.run("fetch", "t", "--json").stdout)["kind"] == "no-pictures"


def test_fetch_overwrites_only_with_force(place: Place) -> None:
    place.complete("t", PICTURES)
    mine = place.folder / "t-2.png"
    mine.write_bytes(b"mine")
    done = place.run("fetch", "t", "--json")
    assert (done.exit_code, json.loads(done.stdout)["files"]) == (1, ["t-2.png"])
    assert mine.read_bytes() == b"mine"
    assert not (place.folder / "t-1.png").exists()
    forced = place.run("fetch", "t", "--force", "--json")
    assert json.loads(forced.stdout) == {"task_id": "t", "files": ["t-1.png", "t-2.png"]}
    assert mine.read_bytes() == PICTURES[1]


def test_fetch_of_a_task_without_pictures_says_how_it_stands(place: Place) -> None:
    place.run("submit", "--prompt", "x", "--id", "t")
    done = place.run("fetch", "t")
    assert (done.exit_code, done.stderr) == (1, "error: task t is pending: it has no pictures\n")


def test_fetch_refuses_a_picture_that_is_not_the_one_recorded(place: Place) -> None:
    place.complete("t", PICTURES)
    place.clients.s3.put_object(Bucket=place.bucket, Key="tasks/t/1.png", Body=b"another")
    done = place.run("fetch", "t", "--json")
    assert (done.exit_code, json.loads(done.stdout)["kind"]) == (1, "changed")
    assert not (place.folder / "t-1.png").exists()


def test_fetch_says_what_is_wrong_when_a_picture_is_gone_or_the_folder_cannot_be_made(place: Place) -> None:
    place.complete("t", PICTURES)
    (place.folder / "file").write_text("")
    assert place.run("fetch", "t", "--out", "file/below").exit_code == 1
    place.clients.s3.delete_object(Bucket=place.bucket, Key="tasks/t/1.png")
    done = place.run("fetch", "t", "--json")
    assert (done.exit_code, json.loads(done.stdout)["kind"]) == (1, "aws-unavailable")
    assert "tasks/t/1.png" in json.loads(done.stdout)["error"]


def test_when_aws_is_out_of_reach_it_is_said_what_to_check(place: Place) -> None:
    done = place.run("show", "t", **aws_environ(NOWHERE))
    assert done.exit_code == 1
    for what in ("network", "aws_region", "AWS_ENDPOINT_URL", "sd-scheduler doctor"):
        assert what in done.stderr


def test_a_queue_that_is_not_there_is_said_to_be_made_by_setup(place: Place) -> None:
    done = place.run("show", "t", SCHEDULER_AWS_SQS_QUEUE_URL=unique("nowhere"))
    assert done.exit_code == 1
    assert "sd-scheduler setup" in done.stderr


def test_a_task_that_waits_is_cancelled_and_cancelling_it_again_is_no_failure(place: Place) -> None:
    place.run("submit", "--prompt", "x", "--id", "t")
    for _ in range(2):
        done = place.run("cancel", "t")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "cancelled\n", "")
    told = json.loads(place.run("cancel", "t", "--json").stdout)
    assert told == {"task_id": "t", "status": "cancelled", "cancel_requested": False}


def test_a_task_without_a_record_is_cancelled_on_request(place: Place) -> None:
    done = place.run("cancel", "t")
    assert done.exit_code == 1
    assert "--unseen" in done.stderr
    assert place.run("cancel", "t", "--unseen").stdout == "cancelled\n"
    assert place.run("cancel", "no id!", "--unseen").exit_code == 3, "no message can have it"
    assert json.loads(place.run("show", "t", "--json").stdout)["status"] == "cancelled"


def test_a_task_that_runs_is_asked_to_end(place: Place) -> None:
    item: Any = {"task_id": {"S": "t"}, "status": {"S": "processing"}}
    place.clients.dynamodb.put_item(TableName=place.table, Item=item)
    done = place.run("cancel", "t", "--json")
    told = {"task_id": "t", "status": "processing", "cancel_requested": True}
    assert (done.exit_code, json.loads(done.stdout)) == (0, told)
    assert json.loads(place.run("show", "t", "--json").stdout)["cancel_requested"] is True
    assert place.run("cancel", "t").stdout.startswith("asked for: ")


def test_a_cancellation_that_comes_too_late_is_a_failure_in_both_ways(place: Place) -> None:
    place.complete("t", PICTURES)
    done = place.run("cancel", "t")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "error: too late: task t is completed\n")
    as_json = place.run("cancel", "t", "--json")
    told = json.loads(as_json.stdout)
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    assert (told["ok"], told["kind"], told["task_id"], told["status"]) == (False, "too-late", "t", "completed")


def parse(tmp_path: Path, body: str, *words: str) -> Result:
    file = tmp_path / "body.json"
    file.write_text(body)
    return CliRunner().invoke(cli, ["task", "parse", str(file), *words])


V1ALPHA1 = {"alwayson_scripts": {"task": "text-to-image", "id_task": "t-1", "uid": "9"}, "prompt": "A dog"}


def test_a_body_is_explained_field_by_field(tmp_path: Path) -> None:
    done = parse(tmp_path, json.dumps({"Message": json.dumps(V1ALPHA1), "MessageId": "sns-1"}))
    assert done.exit_code == 0
    told = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert (told["format"], told["task_id"], told["runtime"]) == ("eks-v1alpha1", "t-1", "legacy")
    assert (told["task_type"], told["prefix"], told["sns_id"]) == ("txt2img", "-", "sns-1")
    assert told["payload"] == '{"prompt": "A dog"}'


def test_a_body_is_explained_as_json_whole(tmp_path: Path) -> None:
    long = V1ALPHA1 | {"prompt": "A dog, " * 1000}
    told = json.loads(parse(tmp_path, json.dumps(long), "--json").stdout)
    assert told["payload"] == {"prompt": long["prompt"]}
    assert told["context"] == {}
    assert len(parse(tmp_path, json.dumps(long)).stdout) < 1500


def test_a_body_is_read_from_standard_input() -> None:
    job = {"task_id": "j-1", "api_path": "/api/v1/camera-angle/jobs", "request_body": {}}
    done = CliRunner().invoke(cli, ["task", "parse", "-", "--json"], input=json.dumps(job))
    told = json.loads(done.stdout)
    assert told["api_path"] == "/api/v1/camera-angle/jobs"
    assert "task_type" not in told, "pipeline, which is ComfyUI's, is what it is called within"


def test_what_is_optional_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    body = {"task_id": "t", "task_type": "txt2img", "payload": {}}
    asked = body | {"preview": True, "webhook": "https://hooks.example.com/sd"}
    told = json.loads(parse(tmp_path, json.dumps(asked), "--json").stdout)
    assert (told["preview"], told["webhook"]) == (True, "https://hooks.example.com/sd")
    assert {"preview", "webhook"}.isdisjoint(json.loads(parse(tmp_path, json.dumps(body), "--json").stdout))


def test_what_v1alpha1_does_not_take_it_does_not_offer(tmp_path: Path) -> None:
    done = parse(tmp_path, '{"alwayson_scripts": {"id_task": "a"}, "prompt": "x"}')
    assert done.exit_code == 3
    assert "extra-batch-images" in done.stderr
    assert "pipeline" not in done.stderr


def test_a_pointer_and_a_reference_say_where_the_request_lies(tmp_path: Path) -> None:
    pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "large", "s3Key": "k"}]
    told = json.loads(parse(tmp_path, json.dumps(pointer), "--json").stdout)
    assert told == {"format": "claim-check", "body": "s3://large/k", "bytes": None, "sns_id": None}
    told = json.loads(parse(tmp_path, '{"taskId": "42", "storage": "dynamodb"}', "--json").stdout)
    assert told == {"format": "predecessor", "task_id": "42", "request": "in the table"}


def test_a_body_that_would_be_refused_ends_with_3_and_the_field(tmp_path: Path) -> None:
    body = json.dumps({"metadata": {"id": "a b", "tasktype": "pipeline"}, "content": {}})
    done = parse(tmp_path, body)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "metadata.id is 'a b'" in done.stderr
    done = parse(tmp_path, body, "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["field"] == "metadata.id"


def test_a_body_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["task", "parse", str(tmp_path / "none.json")]).exit_code == 2


def test_a_refused_body_of_eks_is_submitted_once_it_is_mended(place: Place) -> None:
    body = {"metadata": {"id": "t-9", "tasktype": "text-to-image"}, "content": {"prompt": "A dog"}}
    (place.folder / "task.json").write_text(json.dumps(body))
    done = place.run("submit", "--file", "task.json")
    assert (done.exit_code, done.stdout) == (0, "t-9\n")
    assert place.sent() == [body]


POINTER = ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "large", "s3Key": "k"}]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (POINTER, "this points to the body in s3://large/k"),
        ({"Message": json.dumps(POINTER), "MessageId": "sns-1"}, "this points to the body in s3://large/k"),
        ({"taskId": "42", "storage": "dynamodb"}, "this is a reference to the record of task '42'"),
    ],
    ids=["pointer", "in an envelope", "reference"],
)
def test_what_only_says_where_a_task_lies_is_refused_with_what_to_do(place: Place, message: Any, said: str) -> None:
    (place.folder / "task.json").write_text(json.dumps(message))
    done = place.run("submit", "--file", "task.json")
    assert done.exit_code == 3
    assert done.stderr.startswith(f"refused: {said}")
    assert "send this to the queue as it is" in done.stderr
    assert (place.records(), place.sent()) == (0, [])
