"""`sd-scheduler setup` against both emulators, and behind a gate that refuses as IAM does."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_gate import Gate, gate
from aws_servers import NOWHERE, Cloud, aws_environ, unique
from click.testing import CliRunner, Result
from fakes.endpoint import endpoint, garbling

from scheduler.cli.root import cli
from scheduler.stores.tasks import INDEX

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from scheduler.main import main; main()"]


class Place:
    """Names that no other test has, and commands run for them."""

    def __init__(self, cloud: Cloud, folder: Path, *, url: str | None = None, queue: str | None = None) -> None:
        self.cloud = cloud
        self.folder = folder
        self.queue = unique("tasks")
        self.table = unique("records")
        self.bucket = unique("pictures")
        self.environ = {
            **aws_environ(url or cloud.url),
            "SCHEDULER_AWS_AWS_REGION": "us-east-1",
            "SCHEDULER_AWS_SQS_QUEUE_URL": queue or self.queue,
            "SCHEDULER_AWS_DYNAMODB_TABLE": self.table,
            "SCHEDULER_AWS_S3_BUCKET": self.bucket,
        }

    def run(self, *arguments: str, **environ: str) -> Result:
        """Run the command line in this process, which is ten times as fast as in one of its own."""
        only: dict[str, str | None] = {name: None for name in os.environ if name.startswith(("AWS_", "SCHEDULER_"))}
        with contextlib.chdir(self.folder):
            return CliRunner(env={**only, **self.environ, **environ}).invoke(cli, arguments)

    def setup(self, *arguments: str, code: int = 0, **environ: str) -> dict[str, str]:
        """Run setup --json; return the states by resource, our names left out."""
        done = self.run("setup", "--json", *arguments, **environ)
        assert done.exit_code == code, done.output
        return {self.plain(each["resource"]): each["state"] for each in json.loads(done.stdout)["resources"]}

    def plain(self, text: str) -> str:
        return text.replace(self.queue, "Q").replace(self.table, "T").replace(self.bucket, "B")

    def attributes(self, queue: str) -> dict[str, str]:
        sqs = self.cloud.clients.sqs
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        return dict[Any, str](sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])

    def redrive(self) -> dict[str, Any]:
        policy: dict[str, Any] = json.loads(self.attributes(self.queue)["RedrivePolicy"])
        return policy

    def make_bare_table(self, key: str = "task_id", kind: str = "S") -> None:
        self.cloud.clients.dynamodb.create_table(
            TableName=self.table,
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind}],
            ProvisionedThroughput={"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
        )

    def description(self) -> dict[str, Any]:
        return dict(self.cloud.clients.dynamodb.describe_table(TableName=self.table)["Table"])

    def ttl(self) -> dict[str, Any]:
        answer = self.cloud.clients.dynamodb.describe_time_to_live(TableName=self.table)
        return dict(answer["TimeToLiveDescription"])


@pytest.fixture
def place(cloud: Cloud, tmp_path: Path) -> Place:
    return Place(cloud, tmp_path)


@pytest.fixture
def moto_place(moto: Cloud, tmp_path: Path) -> Place:
    return Place(moto, tmp_path)


@pytest.fixture
def guarded(moto: Cloud, tmp_path: Path) -> Iterator[tuple[Place, Gate]]:
    with gate(moto.url) as opened:
        yield Place(moto, tmp_path, url=opened.url), opened


CREATED = {
    "queue Q-dlq": "created",
    "queue Q": "created",
    "table T": "created",
    "table T expiry": "added",
    "bucket B": "created",
}
EXISTS = {
    "queue Q-dlq": "exists",
    "queue Q": "exists",
    "table T": "exists",
    "table T index": "exists",
    "table T expiry": "exists",
    "bucket B": "exists",
}


def test_it_creates_everything_as_it_should_be_and_the_second_time_nothing(place: Place) -> None:
    assert place.setup() == CREATED

    queue, dlq = place.attributes(place.queue), place.attributes(f"{place.queue}-dlq")
    assert queue["VisibilityTimeout"] == "60"
    assert int(place.redrive()["maxReceiveCount"]) == 50
    assert place.redrive()["deadLetterTargetArn"] == dlq["QueueArn"]
    assert dlq["MessageRetentionPeriod"] == str(14 * 86400)
    assert {queue["SqsManagedSseEnabled"], dlq["SqsManagedSseEnabled"]} == {"true"}
    table = place.description()
    assert table["KeySchema"] == [{"AttributeName": "task_id", "KeyType": "HASH"}]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == INDEX
    assert [(key["AttributeName"], key["KeyType"]) for key in index["KeySchema"]] == [
        ("status", "HASH"),
        ("created_at", "RANGE"),
    ]
    assert index["Projection"]["ProjectionType"] == "KEYS_ONLY"
    assert (place.ttl()["TimeToLiveStatus"], place.ttl()["AttributeName"]) == ("ENABLED", "expires_at")
    s3 = place.cloud.clients.s3
    assert set(s3.get_public_access_block(Bucket=place.bucket)["PublicAccessBlockConfiguration"].values()) == {True}
    rules = s3.get_bucket_encryption(Bucket=place.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"

    assert place.setup() == EXISTS
    assert place.setup("--fix") == EXISTS


def test_a_bucket_outside_us_east_1_is_made_where_it_belongs(moto: Cloud, tmp_path: Path) -> None:
    place = Place(moto, tmp_path)
    place.setup(SCHEDULER_AWS_AWS_REGION="eu-central-1")
    assert moto.clients.s3.get_bucket_location(Bucket=place.bucket)["LocationConstraint"] == "eu-central-1"

    place.queue, place.table = unique("tasks"), unique("records")
    states = place.setup(
        code=1, SCHEDULER_AWS_SQS_QUEUE_URL=place.queue, SCHEDULER_AWS_DYNAMODB_TABLE=place.table
    )  # us-east-1 again
    assert states["bucket B"] == "differs"


def test_several_queues_are_made_each_with_its_own_dead_letter_queue(moto_place: Place) -> None:
    other = unique("urgent")
    states = moto_place.setup(SCHEDULER_AWS_SQS_QUEUE_URL=f"{other}, {moto_place.queue}")
    assert [states[f"queue {name}"] for name in (other, f"{other}-dlq", "Q", "Q-dlq")] == ["created"] * 4


def test_a_queue_may_be_given_by_url(place: Place) -> None:
    probe = place.cloud.queue(dlq=False)
    url = probe.url.replace(probe.name, place.queue)
    assert place.setup(SCHEDULER_AWS_SQS_QUEUE_URL=url) == CREATED
    assert place.setup(SCHEDULER_AWS_SQS_QUEUE_URL=url) == EXISTS


def test_a_url_of_another_account_is_told_and_nothing_is_made_in_ones_own(moto_place: Place) -> None:
    url = f"http://127.0.0.1/210987654321/{moto_place.queue}"
    assert moto_place.setup(code=1, SCHEDULER_AWS_SQS_QUEUE_URL=url)["queue Q"] == "differs"
    with pytest.raises(moto_place.cloud.clients.sqs.exceptions.QueueDoesNotExist):
        moto_place.attributes(moto_place.queue)


def test_a_dry_run_tells_and_changes_nothing(place: Place) -> None:
    told = {resource: f"would be {state}" for resource, state in CREATED.items()}
    assert place.setup("--dry-run") == told
    clients = place.cloud.clients
    with pytest.raises(clients.sqs.exceptions.QueueDoesNotExist):
        place.attributes(f"{place.queue}-dlq")
    assert place.table not in clients.dynamodb.list_tables()["TableNames"]
    assert place.bucket not in {bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]}

    place.cloud.clients.sqs.create_queue(QueueName=place.queue)
    place.make_bare_table()
    states = place.setup("--dry-run", "--fix")
    assert (states["queue Q"], states["table T"], states["table T index"]) == (
        "would be added",
        "exists",
        "would be added",
    )
    assert "RedrivePolicy" not in place.attributes(place.queue)
    assert not place.description().get("GlobalSecondaryIndexes")


def test_what_is_missing_is_added_and_the_rest_left_as_it_was(place: Place) -> None:
    place.cloud.clients.sqs.create_queue(QueueName=place.queue, Attributes={"VisibilityTimeout": "17"})
    place.make_bare_table()

    states = place.setup()

    assert states == CREATED | {
        "queue Q": "added",
        "table T": "exists",
        "table T index": "added",
    }
    assert place.attributes(place.queue)["VisibilityTimeout"] == "17"
    assert int(place.redrive()["maxReceiveCount"]) == 50
    table = place.description()
    assert [index["IndexName"] for index in table["GlobalSecondaryIndexes"]] == [INDEX]
    assert table["ProvisionedThroughput"]["WriteCapacityUnits"] == 4
    assert place.ttl()["AttributeName"] == "expires_at"
    assert place.setup()["table T index"] == "exists"


def test_too_few_receives_are_told_and_mended_only_with_fix(place: Place) -> None:
    made = place.cloud.queue(max_receives=3)
    place.queue = made.name
    given = {"SCHEDULER_AWS_SQS_QUEUE_URL": made.name}

    assert place.setup(code=1, **given)["queue Q"] == "differs"
    assert int(place.redrive()["maxReceiveCount"]) == 3
    assert place.setup("--fix", "--dry-run", **given)["queue Q"] == "would be fixed"
    assert int(place.redrive()["maxReceiveCount"]) == 3
    assert place.setup("--fix", **given)["queue Q"] == "fixed"
    assert int(place.redrive()["maxReceiveCount"]) == 50
    assert place.setup(**given)["queue Q"] == "exists"


def test_a_dead_letter_queue_of_another_name_is_kept_and_given_time(place: Place) -> None:
    sqs = place.cloud.clients.sqs
    morgue = unique("morgue")
    sqs.create_queue(QueueName=morgue, Attributes={"MessageRetentionPeriod": "3600"})
    arn = place.attributes(morgue)["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "20"})
    sqs.create_queue(QueueName=place.queue, Attributes={"RedrivePolicy": policy})

    assert place.setup(code=1)[f"queue {morgue}"] == "differs"
    states = place.setup("--fix")
    assert (states[f"queue {morgue}"], states["queue Q"]) == ("fixed", "exists")
    assert place.attributes(morgue)["MessageRetentionPeriod"] == str(14 * 86400)
    assert int(place.redrive()["maxReceiveCount"]) == 20
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        place.attributes(f"{place.queue}-dlq")


def test_a_dead_letter_queue_that_is_named_but_gone_is_made_again(moto_place: Place) -> None:
    moto_place.setup()
    sqs = moto_place.cloud.clients.sqs
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{moto_place.queue}-dlq")["QueueUrl"])
    states = moto_place.setup()
    assert (states["queue Q-dlq"], states["queue Q"]) == ("created", "exists")


@pytest.mark.parametrize(("key", "state", "code"), [("taskId", "exists", 0), ("id", "differs", 1)])
def test_the_key_of_a_table_that_is_there_must_be_a_task_id(moto_place: Place, key: str, state: str, code: int) -> None:
    moto_place.make_bare_table(key)
    states = moto_place.setup(code=code)
    assert states["table T"] == state
    assert ("table T index" in states) == (state == "exists")


def test_an_index_and_an_expiry_of_another_make_are_told_not_touched(moto_place: Place) -> None:
    dynamodb = moto_place.cloud.clients.dynamodb
    dynamodb.create_table(
        TableName=moto_place.table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("task_id", "status")],  # type: ignore[typeddict-item]
        GlobalSecondaryIndexes=[
            {
                "IndexName": INDEX,
                "KeySchema": [{"AttributeName": "status", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    )
    dynamodb.update_time_to_live(
        TableName=moto_place.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    states = moto_place.setup("--fix", code=1)
    assert (states["table T index"], states["table T expiry"]) == ("differs", "differs")
    assert moto_place.ttl()["AttributeName"] == "ttl"


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ("jobs.fifo", "FIFO queues are not supported"),
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/jobs", "lies in eu-west-1, but aws_region is us-east-1"),
        ("q" * 77, "would exceed 80 characters"),
        ("jobs, jobs-dlq", "is the dead-letter queue of jobs"),
        ("jobs, https://sqs.us-east-1.amazonaws.com/123456789012/jobs", "names the queue jobs more than once"),
    ],
)
def test_queues_that_cannot_be_are_refused_before_anything_is_made(
    moto: Cloud, tmp_path: Path, queues: str, said: str
) -> None:
    place = Place(moto, tmp_path, queue=queues)
    done = place.run("setup")
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert place.table not in moto.clients.dynamodb.list_tables()["TableNames"]


def test_what_aws_refuses_does_not_keep_the_rest_from_being_made(guarded: tuple[Place, Gate]) -> None:
    place, opened = guarded
    opened.denied = frozenset({"sqs:CreateQueue", "s3:CreateBucket"})
    done = place.run("setup")
    assert done.exit_code == 3
    told = place.plain(done.stdout)
    assert "refused          queue Q: creating queue Q-dlq: An error occurred (AccessDenied)" in told
    assert "not authorized to perform: sqs:CreateQueue" in told
    assert "created          table T" in told
    assert "refused          bucket B" in told
    opened.denied = frozenset()
    assert place.setup()["queue Q"] == "created"


def test_somebody_elses_bucket_is_refused(guarded: tuple[Place, Gate]) -> None:
    place, opened = guarded
    opened.denied = frozenset({"s3:ListBucket"})
    assert place.setup(code=3)["bucket B"] == "refused"


@pytest.mark.parametrize("code", ["ExpiredTokenException", "InvalidClientTokenId"])
def test_credentials_that_are_not_taken_end_it_with_3(guarded: tuple[Place, Gate], code: str) -> None:
    place, opened = guarded
    opened.denied, opened.denial_code = frozenset({"sts:GetCallerIdentity"}), code
    done = place.run("setup")
    assert (done.exit_code, done.stdout) == (3, "")
    assert code in done.stderr
    assert opened.passed == []


def test_no_credentials_end_it_with_3(moto_place: Place) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del moto_place.environ[name]
    done = moto_place.run("setup")
    assert done.exit_code == 3
    assert done.stderr.startswith("error: no credentials found")


def test_aws_out_of_reach_ends_it_with_1(moto_place: Place) -> None:
    done = moto_place.run("setup", AWS_ENDPOINT_URL=NOWHERE)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: asking whose credentials these are")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"<a/>", b'{"QueueUrl": "/q", "Attributes": {}, "Table": {}}'])
def test_answers_that_are_none_of_awss_fail_one_resource_each(moto_place: Place, body: bytes) -> None:
    with endpoint(garbling(body)) as portal:
        states = moto_place.setup(code=1, AWS_ENDPOINT_URL=portal)
    assert (states["queue Q"], states["table T"]) == ("failed", "failed")
    assert "bucket B" in states


def test_at_a_terminal_it_prints_a_table(moto_place: Place) -> None:
    ours, theirs = pty.openpty()
    try:
        environ = {**os.environ, **moto_place.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm"}
        done = subprocess.run(
            [*CLI, "setup"], env=environ, cwd=moto_place.folder, stdout=theirs, stderr=subprocess.PIPE, check=False
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert "┃" in shown
    assert moto_place.queue in shown


@pytest.mark.parametrize("command", ["setup", "doctor"])
def test_the_policy_names_the_resources_that_are_there(moto_place: Place, command: str) -> None:
    made = moto_place.cloud.queue(dlq=False)
    sqs = moto_place.cloud.clients.sqs
    morgue = unique("morgue")
    sqs.create_queue(QueueName=morgue)
    policy = json.dumps({"deadLetterTargetArn": moto_place.attributes(morgue)["QueueArn"], "maxReceiveCount": "50"})
    sqs.set_queue_attributes(QueueUrl=made.url, Attributes={"RedrivePolicy": policy})

    done = moto_place.run(command, "--print-policy", SCHEDULER_AWS_SQS_QUEUE_URL=f"{made.name}, absent")

    assert done.exit_code == 0, done.stderr
    statements = {each["Sid"]: each for each in json.loads(done.stdout)["Statement"]}
    arn = "arn:aws:sqs:us-east-1:123456789012:"
    assert statements["TakeTasks"]["Resource"] == [arn + made.name, arn + "absent"]
    assert statements["KeepRefusedMessages"]["Resource"] == [arn + morgue, arn + "absent-dlq"]
    assert statements["StorePictures"]["Resource"] == [f"arn:aws:s3:::{moto_place.bucket}/*"]
    assert "absent could not be asked" in done.stderr


def test_the_policy_is_printed_without_aws_when_a_url_names_the_account(moto_place: Place) -> None:
    url = "https://sqs.us-east-1.amazonaws.com/210987654321/jobs"
    done = moto_place.run("setup", "--print-policy", AWS_ENDPOINT_URL=NOWHERE, SCHEDULER_AWS_SQS_QUEUE_URL=url)
    assert done.exit_code == 0
    assert "arn:aws:sqs:us-east-1:210987654321:jobs-dlq" in done.stdout
    assert "note:" in done.stderr
    done = moto_place.run("setup", "--print-policy", AWS_ENDPOINT_URL=NOWHERE)
    assert (done.exit_code, done.stdout) == (1, "")
