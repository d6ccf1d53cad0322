"""`sd-scheduler doctor`: a whole world, a gate that lets through only what the policy allows, and ills."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_gate import Gate, gate
from aws_servers import NOWHERE, Cloud, MadeQueue, aws_environ, unique
from click.testing import CliRunner, Result
from fakes.endpoint import endpoint, garbling

from scheduler.aws.addresses import Account, QueueAddress
from scheduler.aws.policy import worker_policy
from scheduler.cli.root import cli
from scheduler.supervisor_program import program

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from scheduler.main import main; main()", "doctor"]
KEYS: Any = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
ROLE = "arn:aws:sts::123456789012:assumed-role/worker/i-0abc"
POLICY = worker_policy(
    Account(number="1", region="us-east-1"),
    queues=[QueueAddress(name="q")],
    dlqs=[QueueAddress(name="d")],
    table="t",
    bucket="b",
)
ALLOWED = frozenset(action for statement in POLICY["Statement"] for action in statement["Action"])


@pytest.fixture(scope="module")
def webui() -> Iterator[str]:
    """Answer as much of the WebUI's API as a probe asks for."""
    answers: dict[str, Any] = {
        "/sdapi/v1/options": {"sd_model_checkpoint": "sea.safetensors [abc]"},
        "/sdapi/v1/sd-models": [
            {
                "title": "sea.safetensors [abc]",
                "model_name": "sea",
                "hash": "abc",
                "sha256": None,
                "filename": "/models/sea.safetensors",
                "config": None,
            }
        ],
        "/sdapi/v1/samplers": [{"name": "Euler", "aliases": ["k_euler"], "options": {}}],
        "/sdapi/v1/schedulers": [],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = json.dumps(answers.get(self.path, {"detail": "Not Found"})).encode()
            self.send_response(200 if self.path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


class World:
    """Everything that a healthy worker has; `environ` may be spoiled before doctor looks."""

    def __init__(self, cloud: Cloud, folder: Path, webui: str, *, queue: MadeQueue | None = None) -> None:
        self.cloud = cloud
        self.folder = folder
        self.queue = queue or cloud.queue(visibility_s=60)
        if queue is None and self.queue.dlq_url:
            retention: Any = {"MessageRetentionPeriod": str(14 * 86400)}
            cloud.clients.sqs.set_queue_attributes(QueueUrl=self.queue.dlq_url, Attributes=retention)
        self.table = cloud.table()
        cloud.clients.dynamodb.update_time_to_live(
            TableName=self.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
        )
        self.bucket = cloud.bucket()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SCHEDULER_"))},
            **aws_environ(cloud.url),
            "PYTHONPATH": str(ROOT),
            "SCHEDULER_AWS_AWS_REGION": "us-east-1",
            "SCHEDULER_AWS_SQS_QUEUE_URL": self.queue.name,
            "SCHEDULER_AWS_DYNAMODB_TABLE": self.table,
            "SCHEDULER_AWS_S3_BUCKET": self.bucket,
            "SCHEDULER_SD_API_SD_API_BASE_URL": webui,
        }

    def run(self, *arguments: str) -> Result:
        """Run doctor in this process, which is many times as fast as in one of its own."""
        only: dict[str, str | None] = dict.fromkeys(os.environ.keys() - self.environ.keys())
        with contextlib.chdir(self.folder):
            return CliRunner(env={**only, **self.environ}).invoke(cli, ["doctor", *arguments])

    def run_alone(self, **streams: Any) -> subprocess.CompletedProcess[str]:
        """Run doctor as the process that a person starts."""
        return subprocess.run(CLI, env=self.environ, cwd=self.folder, text=True, timeout=90, check=False, **streams)

    def look(self, *, code: int) -> dict[str, dict[str, str]]:
        """Run doctor --json; return the findings by check, our names left out."""
        done = self.run("--json")
        assert done.exit_code == code, (done.output, done.exception)
        report = json.loads(done.stdout)
        assert report["ok"] == (code == 0)
        assert isinstance(done.exception, SystemExit | None)
        assert "Traceback" not in done.stderr
        return {self.plain(each["check"]): each for each in report["checks"]}

    def plain(self, text: str) -> str:
        return text.replace(self.queue.name, "Q").replace(self.table, "T").replace(self.bucket, "B")


def verdicts(findings: dict[str, dict[str, str]], verdict: str) -> set[str]:
    return {check for check, finding in findings.items() if finding["verdict"] == verdict}


@pytest.fixture
def world(cloud: Cloud, tmp_path: Path, webui: str) -> World:
    return World(cloud, tmp_path, webui)


@pytest.fixture
def moto_world(moto: Cloud, tmp_path: Path, webui: str) -> World:
    return World(moto, tmp_path, webui)


@pytest.fixture
def guarded(moto_world: World) -> Iterator[tuple[World, Gate]]:
    with gate(moto_world.cloud.url) as opened:
        moto_world.environ |= aws_environ(opened.url)
        yield moto_world, opened


def test_a_healthy_world_is_well_and_is_left_as_it_was(world: World) -> None:
    sqs = world.cloud.clients.sqs
    sqs.send_message(QueueUrl=world.queue.url, MessageBody="a task")

    findings = world.look(code=0)
    world.look(code=0)  # the object that it wrote is no trouble the second time

    assert verdicts(findings, "fail") == set()
    assert {
        "configuration",
        "credentials",
        "queue Q",
        "queue Q visibility",
        "queue Q redrive",
        "queue Q dead letters",
        "queue Q receive",
        "queue Q extend",
        "queue Q delete",
        "table T",
        "table T index",
        "table T expiry",
        "table T update",
        "table T read",
        "records",
        "bucket B",
        "bucket B write",
        "bucket B read",
        "bucket B remove previews",
        "cloudfront",
        "clock",
        "disk",
        "supervisord stop time",
    } <= verdicts(findings, "ok")
    assert findings["queue Q refusals"]["verdict"] == "skipped"
    assert "is not checked" in findings["queue Q refusals"]["found"]
    (engine,) = (finding for check, finding in findings.items() if check.startswith("engine "))
    assert (engine["verdict"], engine["found"]) == ("ok", "answers; default checkpoint: sea.safetensors [abc]")

    (message,) = sqs.receive_message(QueueUrl=world.queue.url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "a task"
    assert world.cloud.clients.dynamodb.scan(TableName=world.table)["Items"] == []
    objects = world.cloud.clients.s3.list_objects_v2(Bucket=world.bucket)["Contents"]
    assert [each["Key"] for each in objects] == ["tasks/doctor-probe.txt"]


def test_a_role_with_the_printed_policy_and_no_more_is_well(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.allowed = ALLOWED | {"sts:GetCallerIdentity"}
    opened.identity_arn = ROLE
    opened.simulated = {"sqs:SendMessage": "allowed"}

    findings = world.look(code=0)

    assert verdicts(findings, "fail") | verdicts(findings, "warn") == set()
    assert findings["queue Q refusals"]["verdict"] == "ok"
    # What a worker may not ask is said to be unchecked, not called wrong.
    assert verdicts(findings, "skipped") == {"table T expiry", "bucket B", "bucket B public access"}
    assert set(opened.refused) == {"dynamodb:DescribeTimeToLive", "s3:ListBucket", "s3:GetBucketPublicAccessBlock"}
    # All that the worker needs was really tried, but for the one call that cannot be.
    assert set(opened.passed) == ALLOWED - {"sqs:SendMessage"}


def test_each_permission_that_lacks_is_named_with_its_resource(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.identity_arn = ROLE
    opened.simulated = {"sqs:SendMessage": "implicitDeny", "sns:Publish": "implicitDeny"}
    topic = unique("results")
    arn = world.cloud.clients.sns.create_topic(Name=topic)["TopicArn"]
    world.environ["SCHEDULER_NOTIFY_SNS_TOPIC_ARN"] = arn
    lacking = {
        "queue Q receive": "sqs:ReceiveMessage",
        "queue Q extend": "sqs:ChangeMessageVisibility",
        "queue Q delete": "sqs:DeleteMessage",
        "queue Q refusals": "sqs:SendMessage",
        "table T update": "dynamodb:UpdateItem",
        "table T read": "dynamodb:BatchGetItem",
        "bucket B write": "s3:PutObject",
        f"topic {topic} publish": "sns:Publish",
        "bucket B remove previews": "s3:DeleteObject",
    }
    opened.denied = frozenset(lacking.values())

    findings = world.look(code=1)

    assert verdicts(findings, "fail") == set(lacking)
    for check, action in lacking.items():
        assert f"allow {action} on arn:aws:" in findings[check]["advice"]
    assert world.queue.name in findings["queue Q receive"]["advice"]
    assert str(world.queue.dlq_name) in findings["queue Q refusals"]["advice"]
    assert findings["bucket B read"]["verdict"] == "skipped"


def test_what_others_were_to_make_and_is_not_there_is_told_with_what_to_do(moto_world: World) -> None:
    other, absent, topic = moto_world.cloud.bucket(), unique("absent"), unique("results")
    arn = f"arn:aws:sns:eu-west-1:123456789012:{topic}"
    moto_world.environ |= {
        "SCHEDULER_INPUTS_ALLOW_BUCKETS": f"{moto_world.bucket}, {other}, {absent}",
        "SCHEDULER_NOTIFY_SNS_TOPIC_ARN": arn,
        "SCHEDULER_SD_API_RESTART_COMMAND": "nosuchcmd restart it",
    }
    findings = moto_world.look(code=1)

    missing = {f"topic {topic}", f"input bucket {absent}", "engine sdwebui restart"}
    assert verdicts(findings, "fail") == missing
    assert "sns_topic_arn" in findings[f"topic {topic}"]["advice"]
    assert "allow_buckets" in findings[f"input bucket {absent}"]["advice"]
    assert findings["engine sdwebui restart"]["found"].startswith("there is no program nosuchcmd")
    assert "whole path" in findings["engine sdwebui restart"]["advice"]
    assert findings[f"input bucket {other}"]["verdict"] == "ok"
    assert f"input bucket {moto_world.bucket}" not in findings

    sns: Any = boto3.client("sns", "eu-west-1", endpoint_url=moto_world.cloud.url, **KEYS)
    sns.create_topic(Name=topic)
    moto_world.environ["SCHEDULER_INPUTS_ALLOW_BUCKETS"] = other
    moto_world.environ["SCHEDULER_SD_API_RESTART_COMMAND"] = f"{sys.executable} -c pass"
    findings = moto_world.look(code=0)
    assert findings[f"topic {topic}"]["verdict"] == "ok"
    assert f"{sys.executable} is there" in findings["engine sdwebui restart"]["found"]


def test_what_a_worker_may_not_look_at_is_not_called_absent(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.identity_arn = ROLE
    opened.simulated = {"sqs:SendMessage": "allowed", "sns:Publish": "allowed", "s3:GetObject": "implicitDeny"}
    opened.denied = frozenset({"sns:GetTopicAttributes", "s3:ListBucket"})
    world.environ["SCHEDULER_NOTIFY_SNS_TOPIC_ARN"] = "arn:aws:sns:us-east-1:123456789012:results"
    world.environ["SCHEDULER_INPUTS_ALLOW_BUCKETS"] = "example-drafts"

    findings = world.look(code=1)

    assert {"topic results", "input bucket example-drafts"} <= verdicts(findings, "skipped")
    assert findings["topic results publish"]["verdict"] == "ok"
    assert verdicts(findings, "fail") == {"input bucket example-drafts read"}
    assert "s3:GetObject on arn:aws:s3:::example-drafts/*" in findings["input bucket example-drafts read"]["advice"]


def test_the_advice_for_an_engine_that_is_down_is_for_its_kind(moto_world: World) -> None:
    moto_world.environ["SCHEDULER_ENGINES_GRAPHS"] = f"comfyui {NOWHERE}"
    moto_world.environ["SCHEDULER_ENGINES_JOBS"] = f"job_api {NOWHERE}/jobs"
    findings = moto_world.look(code=1)
    assert findings["engine graphs"]["advice"] == "start ComfyUI there, or correct its address"
    assert findings["engine jobs"]["advice"] == "start the job API there, or correct its address"


def test_permissions_to_look_that_a_worker_needs_are_named_too(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.denied = frozenset({"sqs:GetQueueAttributes", "dynamodb:DescribeTable", "s3:GetObject"})

    findings = world.look(code=1)

    assert verdicts(findings, "fail") == {"queue Q", "table T", "bucket B read"}
    assert "sqs:GetQueueAttributes" in findings["queue Q"]["advice"]
    assert "dynamodb:DescribeTable" in findings["table T"]["advice"]
    assert "s3:GetObject" in findings["bucket B read"]["advice"]
    assert {"queue Q permissions", "table T permissions"} <= verdicts(findings, "skipped")


def test_credentials_that_have_expired_are_told_once(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.denied, opened.denial_code = frozenset({"sts:GetCallerIdentity"}), "ExpiredToken"
    findings = world.look(code=1)
    assert verdicts(findings, "fail") == {"credentials"}
    assert "renew the credentials" in findings["credentials"]["advice"]
    assert findings["disk"]["verdict"] == "ok"
    assert opened.passed == []


def test_a_clock_that_is_off_is_found_by_the_dates_of_answers(guarded: tuple[World, Gate]) -> None:
    world, opened = guarded
    opened.late_s = -30.0
    findings = world.look(code=1)
    assert verdicts(findings, "fail") == {"clock"}
    assert "chrony" in findings["clock"]["advice"]


def test_an_empty_account_is_told_to_run_setup_and_everything_is_looked_at(moto_world: World) -> None:
    absent = unique("absent")
    moto_world.environ |= {
        "SCHEDULER_AWS_SQS_QUEUE_URL": f"{absent}, {moto_world.queue.name}",
        "SCHEDULER_AWS_DYNAMODB_TABLE": absent,
        "SCHEDULER_AWS_S3_BUCKET": absent,
        "SCHEDULER_SD_API_SD_API_BASE_URL": NOWHERE,
    }
    findings = moto_world.look(code=1)
    missing = {f"queue {absent}", f"table {absent}", f"bucket {absent}"}
    assert verdicts(findings, "fail") == missing | {"engine sdwebui"}
    assert all("sd-scheduler setup" in findings[check]["advice"] for check in missing)
    assert "--api" in findings["engine sdwebui"]["advice"]
    assert findings["engine sdwebui"]["found"].endswith("/sdapi/v1/options: Connection refused")
    assert findings["queue Q receive"]["verdict"] == "ok"


def test_queues_that_would_lose_work_fail(moto: Cloud, tmp_path: Path, webui: str) -> None:
    hasty, lonely, orphan = moto.queue(visibility_s=300, max_receives=3), moto.queue(dlq=False), moto.queue()
    retention: Any = {"MessageRetentionPeriod": "3600"}
    moto.clients.sqs.set_queue_attributes(QueueUrl=str(hasty.dlq_url), Attributes=retention)
    moto.clients.sqs.delete_queue(QueueUrl=str(orphan.dlq_url))
    world = World(moto, tmp_path, webui, queue=hasty)
    world.environ["SCHEDULER_AWS_SQS_QUEUE_URL"] = f"{hasty.name}, {lonely.name}, {orphan.url}"

    findings = world.look(code=1)

    assert verdicts(findings, "fail") == {
        "queue Q redrive",
        "queue Q dead letters",
        f"queue {orphan.name} dead letters",
    }
    assert "maxReceiveCount is 3" in findings["queue Q redrive"]["found"]
    assert "is not there" in findings[f"queue {orphan.name} dead letters"]["found"]
    assert findings["queue Q visibility"]["verdict"] == "warn"
    assert findings["queue Q receive"]["verdict"] == "skipped"
    assert findings[f"queue {lonely.name} dead letters"]["verdict"] == "warn"
    assert "s3:PutObject" in findings[f"queue {lonely.name} refusals"]["found"]


def test_tables_of_another_shape(moto_world: World) -> None:
    dynamodb = moto_world.cloud.clients.dynamodb
    bare, wrong, early = unique("bare"), unique("wrong"), moto_world.cloud.table(key_name="taskId")
    for name, key in ((bare, "task_id"), (wrong, "id")):
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        )
    dynamodb.update_time_to_live(
        TableName=early, TimeToLiveSpecification={"Enabled": True, "AttributeName": "created_at"}
    )

    moto_world.environ["SCHEDULER_AWS_DYNAMODB_TABLE"] = bare
    findings = moto_world.look(code=0)
    assert {f"table {bare} index", f"table {bare} expiry"} <= verdicts(findings, "warn")

    moto_world.environ["SCHEDULER_AWS_DYNAMODB_TABLE"] = wrong
    assert verdicts(moto_world.look(code=1), "fail") == {f"table {wrong}"}

    moto_world.environ["SCHEDULER_AWS_DYNAMODB_TABLE"] = early
    findings = moto_world.look(code=1)
    assert verdicts(findings, "fail") == {f"table {early} expiry"}
    assert findings[f"table {early} update"]["verdict"] == "ok"


def test_what_lies_in_another_region(moto_world: World) -> None:
    moto_world.environ |= {
        "SCHEDULER_AWS_AWS_REGION": "eu-central-1",
        "SCHEDULER_AWS_SQS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/jobs",
    }
    findings = moto_world.look(code=1)
    assert "lies in us-east-1, but aws_region is eu-central-1" in findings["queue jobs"]["found"]
    assert "lies in us-east-1" in findings["bucket B"]["found"]


def test_a_wrong_configuration_ends_it_with_2_and_tells_every_fault(moto_world: World) -> None:
    moto_world.environ |= {"SCHEDULER_AWS_SQS_QUEUE_URL": "jobs.fifo", "SCHEDULER_SCHEDULER_MAX_RUNS": "0"}
    done = moto_world.run_alone(capture_output=True)
    assert done.returncode == 2
    assert "FIFO queues are not supported" in done.stdout
    assert "SCHEDULER_SCHEDULER_MAX_RUNS" in done.stdout
    assert "ok               disk" in done.stdout
    assert json.loads(moto_world.run("--json").stdout)["ok"] is False


def test_something_that_is_not_aws_is_told_without_a_traceback(moto_world: World) -> None:
    with endpoint(lambda *_: (500, b"<html>the hotel's portal</html>")) as portal:
        moto_world.environ |= aws_environ(portal)
        findings = moto_world.look(code=1)
    assert findings["credentials"]["verdict"] == "warn"
    assert {"queue Q", "table T", "bucket B"} == verdicts(findings, "fail")
    assert "AWS_ENDPOINT_URL" in findings["table T"]["advice"]
    assert "<html>" not in json.dumps(findings)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<a/>", b'{"QueueUrl": "/q", "Attributes": {}, "Table": {}}'])
def test_answers_that_are_none_of_awss_are_told_without_a_traceback(moto_world: World, body: bytes) -> None:
    with endpoint(garbling(body)) as portal:
        moto_world.environ |= aws_environ(portal)
        findings = moto_world.look(code=1)
    assert findings["credentials"]["verdict"] == "ok"
    assert {"queue Q", "table T"} <= verdicts(findings, "fail")
    assert "not in AWS's form" in findings["table T"]["found"]


def test_no_credentials_at_all(moto_world: World) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del moto_world.environ[name]
    findings = moto_world.look(code=1)
    assert verdicts(findings, "fail") == {"credentials"}
    assert "AWS_PROFILE" in findings["credentials"]["found"]


def test_a_stop_time_that_lags_behind_the_grace_fails(moto_world: World) -> None:
    file = moto_world.folder / "deploy/supervisord/api-scheduler.conf"
    file.parent.mkdir(parents=True)
    file.write_text(program(30), encoding="utf-8")
    findings = moto_world.look(code=1)
    assert verdicts(findings, "fail") == {"supervisord stop time"}
    assert "stop_grace_s 90" in findings["supervisord stop time"]["found"]


def test_at_a_terminal_it_prints_a_table_with_what_to_do(moto_world: World) -> None:
    moto_world.environ |= {"SCHEDULER_AWS_S3_BUCKET": unique("absent"), "COLUMNS": "160", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # how the end of a terminal is told
            while data := os.read(ours, 4096):
                shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = moto_world.run_alone(stdout=theirs, stderr=subprocess.PIPE)
    finally:
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    assert done.returncode == 1, done.stderr
    text = b"".join(shown).decode()
    assert "┃" in text
    assert "run: sd-scheduler setup" in text
