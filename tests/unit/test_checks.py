"""The pure parts of setup and doctor: names, shapes, the policy, judgments of host and table."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import ClientError
from fakes import FakeClock

from scheduler import config
from scheduler.aws import shape
from scheduler.aws.addresses import Account, QueueAddress, dlq_name, read_queue, region_fault
from scheduler.aws.checking import Asking, Verdict
from scheduler.aws.checks import Caller, clock_finding, lifetime
from scheduler.aws.described import Index, Table, read_table
from scheduler.aws.make_table import make_table
from scheduler.aws.making import Making
from scheduler.aws.policy import policy_for, worker_policy
from scheduler.cli import host_checks
from scheduler.stores.tasks import INDEX
from scheduler.supervisor_program import STOP_MARGIN_S, program

ROOT = Path(__file__).parents[2]
ACCOUNT = Account(number="123456789012", region="us-east-1")

# names


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("jobs", QueueAddress(name="jobs")),
        (
            "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
            QueueAddress(name="jobs", account="123456789012", region="eu-west-1"),
        ),
        (
            "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/jobs",
            QueueAddress(name="jobs", account="123456789012", region="cn-north-1"),
        ),
        (
            "https://eu-west-1.queue.amazonaws.com/123456789012/jobs",
            QueueAddress(name="jobs", account="123456789012", region="eu-west-1"),
        ),
        (
            "https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com/123456789012/jobs",
            QueueAddress(name="jobs", account="123456789012", region="eu-west-1"),
        ),
        ("http://127.0.0.1:4566/000000000000/jobs", QueueAddress(name="jobs", account="000000000000")),
        ("http://localhost:9324/queue/jobs", QueueAddress(name="jobs")),
    ],
)
def test_a_queues_url_is_taken_apart(given: str, expected: QueueAddress) -> None:
    assert read_queue(given) == expected


def test_a_url_of_another_region_is_a_fault_and_no_other_is() -> None:
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs"
    assert region_fault(url, "eu-west-1") is None
    assert region_fault("jobs", "us-east-1") is None
    assert "eu-west-1" in (region_fault(url, "us-east-1") or "")


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:sts::123456789012:assumed-role/worker/i-0abc", "arn:aws:iam::123456789012:role/worker"),
        ("arn:aws-cn:sts::123456789012:assumed-role/worker/i-0abc", "arn:aws-cn:iam::123456789012:role/worker"),
        ("arn:aws:iam::123456789012:user/team/ann", "arn:aws:iam::123456789012:user/team/ann"),
        ("arn:aws:iam::123456789012:root", None),
        ("arn:aws:sts::123456789012:federated-user/ann", None),
    ],
)
def test_the_principal_behind_the_credentials(arn: str, principal: str | None) -> None:
    assert Caller(account="123456789012", arn=arn).principal == principal


# shapes


def table_with(*, key: dict[str, str], types: dict[str, str]) -> Table:
    return Table(status="ACTIVE", key=key, types=types, indexes=(), provisioned=None)


def test_setup_makes_what_the_stores_use() -> None:
    assert shape.DLQ_RETENTION_S > shape.QUEUE_RETENTION_S
    dynamodb = NoTable()
    list(make_table(Making(clients=SimpleNamespace(dynamodb=dynamodb), account=ACCOUNT), "records"))  # type: ignore[arg-type]
    table = read_table(dynamodb.created)
    assert (shape.key_fault(table), shape.index_fault(table)) == (None, None)
    assert shape.find_index(table) == Index(
        name=INDEX, key={"HASH": "status", "RANGE": "created_at"}, status="ACTIVE", projection="KEYS_ONLY"
    )


@pytest.mark.parametrize(
    ("key", "kind", "fits"),
    [("task_id", "S", True), ("taskId", "S", True), ("id", "S", False), ("task_id", "N", False)],
)
def test_which_keys_a_table_may_have(key: str, kind: str, fits: bool) -> None:
    table = table_with(key={"HASH": key}, types={key: kind})
    assert (shape.key_fault(table) is None) == fits
    assert shape.key_fault(table_with(key={"HASH": key, "RANGE": "created_at"}, types={key: kind})) is not None


def test_an_index_cannot_be_added_where_its_attributes_have_another_type() -> None:
    table = table_with(key={"HASH": "task_id"}, types={"task_id": "S", "created_at": "S"})
    assert "created_at" in (shape.index_fault(table) or "")


@pytest.mark.parametrize(
    ("days", "retentions", "verdict"),
    [
        (29, [28 * 86400], Verdict.OK),
        (28, [28 * 86400], Verdict.FAIL),
        (19, [18 * 86400], Verdict.OK),
        (19, [18 * 86400, 20 * 86400], Verdict.FAIL),
        (28, [18 * 86400, None], Verdict.FAIL),
    ],
)
def test_a_record_must_outlive_every_copy_of_its_message(
    days: int, retentions: list[int | None], verdict: Verdict
) -> None:
    assert lifetime("records", days, retentions).verdict is verdict


@pytest.mark.parametrize(("ahead_s", "verdict"), [(0.0, Verdict.OK), (4.0, Verdict.OK), (8.0, Verdict.FAIL)])
def test_a_clock_is_judged_against_a_twelfth_of_the_lease(ahead_s: float, verdict: Verdict) -> None:
    clock = FakeClock()
    asking = Asking(clock=clock)
    asking.skew.add(
        "Thu, 01 Jan 2026 00:00:00 GMT", sent_at_s=1767225600 + ahead_s, received_at_s=1767225600.5 + ahead_s
    )
    assert clock_finding(asking, lease_s=60).verdict is verdict


# tables that are not there yet


class NoTable:
    """DynamoDB without a table; the one that is created is ready at once."""

    def __init__(self) -> None:
        self.created: dict[str, Any] = {}

    def describe_table(self, **_: object) -> dict[str, Any]:
        if not self.created:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "DescribeTable")
        return {"Table": self.created}

    def create_table(self, *, TableName: str, **definition: Any) -> None:  # noqa: N803 - boto3's names
        indexes = [index | {"IndexStatus": "ACTIVE"} for index in definition["GlobalSecondaryIndexes"]]
        billing = {"BillingModeSummary": {"BillingMode": definition["BillingMode"]}}
        self.created = definition | billing | {"TableStatus": "ACTIVE", "GlobalSecondaryIndexes": indexes}

    def update_time_to_live(self, **_: object) -> None:
        """Take it."""


class SlowTable:
    """DynamoDB, as far as making a table needs it; a table takes `describes` looks to become active."""

    def __init__(self, describes: int) -> None:
        self.left = describes
        self.expires_by: str | None = None

    def describe_table(self, **_: object) -> dict[str, Any]:
        self.left -= 1
        status = "ACTIVE" if self.left <= 0 else "CREATING"
        return {
            "Table": {
                "TableStatus": status,
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "KeySchema": [{"AttributeName": "task_id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "task_id", "AttributeType": "S"}],
                "GlobalSecondaryIndexes": [
                    {
                        "IndexName": shape.INDEX,
                        "IndexStatus": status,
                        "KeySchema": [
                            {"AttributeName": "status", "KeyType": "HASH"},
                            {"AttributeName": "created_at", "KeyType": "RANGE"},
                        ],
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                ],
            }
        }

    def describe_time_to_live(self, **_: object) -> dict[str, Any]:
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}

    def update_time_to_live(self, *, TableName: str, TimeToLiveSpecification: dict[str, Any]) -> None:  # noqa: N803 - boto3's names
        if self.left > 0:
            raise AssertionError(f"{TableName} is not active: AWS would refuse this")
        self.expires_by = TimeToLiveSpecification["AttributeName"]


def test_setup_waits_until_a_table_is_active_before_it_changes_it() -> None:
    table, waits, said = SlowTable(4), list[float](), list[str]()
    making = Making(
        clients=SimpleNamespace(dynamodb=table),  # type: ignore[arg-type]
        account=ACCOUNT,
        pause=waits.append,
        say=said.append,
    )
    outcomes = list(make_table(making, "records"))
    assert table.expires_by == "expires_at"
    assert [outcome.told for outcome in outcomes] == ["exists", "exists", "added"]
    assert len(waits) == 2
    assert said == ["waiting for table records to become active"] * 2


# the policy


NOT_THE_WORKER = {  # people's commands, what producers call, emulators, and the fleet, which has statements of its own
    "scheduler/autoscale/*",
    "scheduler/autoscale/fleets/*",
    "scheduler/aws/*",
    "scheduler/cli/*",
    "scheduler/session.py",
    "scheduler/submission.py",
    "scheduler/stores/done_tasks.py",
    "scheduler/local/*",
    "scheduler/local/*/*",
}
ACTION_OF = {"HeadObject": "s3:GetObject"}


def operations_in_the_daemon() -> set[str]:
    """Every AWS operation that the daemon's source calls, as the IAM action that allows it."""
    methods: dict[str, str] = {}
    session = boto3.Session(region_name="us-east-1")
    for service in ("sqs", "dynamodb", "s3", "sns"):
        for operation in session._session.get_service_model(service).operation_names:
            action = ACTION_OF.get(operation, f"{service}:{operation}")
            if service == "sqs":
                action = action.removesuffix("Batch")
            methods[xform_name(operation)] = action
    found = set()
    for file in (ROOT / "scheduler").rglob("*.py"):
        if any(file.relative_to(ROOT).match(pattern) for pattern in NOT_THE_WORKER):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in methods:
                found.add(methods[node.attr])
    return found


def test_the_policy_allows_what_the_daemon_calls_and_nothing_else() -> None:
    policy = worker_policy(
        ACCOUNT,
        queues=[QueueAddress(name="q")],
        dlqs=[QueueAddress(name="d")],
        table="records",
        bucket="pictures",
        topic_arn="arn:aws:sns:us-east-1:123456789012:sd-results",
    )
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert allowed == operations_in_the_daemon()
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])


def test_the_policy_names_no_resource_but_the_workers_own() -> None:
    queues = [QueueAddress(name="q"), QueueAddress(name="r", account="210987654321")]
    policy = worker_policy(ACCOUNT, queues=queues, dlqs=[QueueAddress(name="d")], table="records", bucket="pictures")
    resources = {action: each["Resource"] for each in policy["Statement"] for action in each["Action"]}
    assert resources["sqs:ReceiveMessage"] == [
        "arn:aws:sqs:us-east-1:123456789012:q",
        "arn:aws:sqs:us-east-1:210987654321:r",
    ]
    assert resources["sqs:SendMessage"] == ["arn:aws:sqs:us-east-1:123456789012:d"]
    assert resources["dynamodb:UpdateItem"] == ["arn:aws:dynamodb:us-east-1:123456789012:table/records"]
    assert resources["s3:PutObject"] == ["arn:aws:s3:::pictures/*"]
    without = worker_policy(ACCOUNT, queues=queues, dlqs=[], table="records", bucket="pictures")
    assert "sqs:SendMessage" not in json.dumps(without)


def test_the_policy_lets_inputs_be_read_from_the_listed_buckets_and_nothing_else_be_done_there() -> None:
    policy = worker_policy(
        ACCOUNT, queues=[], dlqs=[], table="records", bucket="pictures", input_buckets=["pictures", "drafts"]
    )
    about_drafts = [each for each in policy["Statement"] if "arn:aws:s3:::drafts/*" in each["Resource"]]
    assert about_drafts == [
        {"Sid": "ReadInputs", "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::drafts/*"]}
    ]


def test_the_policy_lets_ends_be_published_to_the_topic_where_there_is_one() -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:sd-results"
    policy = worker_policy(ACCOUNT, queues=[], dlqs=[], table="records", bucket="pictures", topic_arn=topic)
    about_topics = [each for each in policy["Statement"] if "sns" in json.dumps(each)]
    assert about_topics == [{"Sid": "AnnounceEnds", "Effect": "Allow", "Action": ["sns:Publish"], "Resource": [topic]}]


def test_the_documented_policy_is_that_of_the_template() -> None:
    settings = config.load(ROOT / "conf.template.ini", {})
    documented = json.loads((ROOT / "docs/iam-policy.json").read_text(encoding="utf-8"))
    assert documented == policy_for(settings.aws, ACCOUNT, dlqs={})
    assert dlq_name("sd-tasks") in json.dumps(documented)


# the host


@pytest.mark.parametrize(
    ("free_bytes", "verdict"),
    [(2_000_000_000, Verdict.OK), (900_000_000, Verdict.WARN), (100_000_000, Verdict.FAIL)],
)
def test_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: int, verdict: Verdict) -> None:
    monkeypatch.setattr(host_checks.shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    assert host_checks.disk(tmp_path).verdict is verdict


def written(root: Path, text: str) -> Path:
    file = root / host_checks.PROGRAM_FILE
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    return root


def test_supervisords_stop_time_must_leave_room_for_the_grace(tmp_path: Path) -> None:
    root = written(tmp_path, program(90))
    assert host_checks.stop_time(90, [root]).verdict is Verdict.OK
    assert host_checks.stop_time(60, [root]).verdict is Verdict.OK
    stale = host_checks.stop_time(91, [root])
    assert stale.verdict is Verdict.FAIL
    assert str(91 + STOP_MARGIN_S) in stale.found


def test_a_program_file_without_a_stop_time_or_of_another_form_fails(tmp_path: Path) -> None:
    silent = written(tmp_path / "silent", "[program:api-scheduler]\ncommand = x\n")
    assert host_checks.stop_time(1, [silent]).verdict is Verdict.FAIL
    broken = written(tmp_path / "broken", "[program:api-scheduler]\nstopwaitsecs = soon\n")
    assert host_checks.stop_time(1, [broken]).verdict is Verdict.FAIL


def test_the_first_program_file_found_is_looked_at_and_none_is_no_fault(tmp_path: Path) -> None:
    near, far = written(tmp_path / "near", program(30)), written(tmp_path / "far", program(90))
    assert host_checks.stop_time(90, [tmp_path, near, far]).verdict is Verdict.FAIL
    assert host_checks.stop_time(90, [tmp_path]).verdict is Verdict.SKIPPED


def test_the_advice_names_a_command_that_there_is(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from scheduler.cli.root import cli

    advice = host_checks.stop_time(91, [written(tmp_path, program(90))]).advice
    command = advice.partition("sd-scheduler ")[2].partition(" -o")[0]
    done = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert done.exit_code == 0, done.output
    assert "--output" in done.output
