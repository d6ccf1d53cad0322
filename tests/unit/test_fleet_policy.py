"""The IAM statements allow what the adapters call, and nothing else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest
from fakes import FakeClock
from fakes.fleet import REQUEST_ID, FakeFleet
from fakes.fleet_asg import GROUP, FakeAsg
from fakes.fleet_ec2 import FakeEc2

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.instance import SingleInstance
from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.fleets.spot_fleet import SpotFleet
from scheduler.aws.addresses import Account, QueueAddress
from scheduler.aws.fleet_policy import Role, Statement, fleet_policy, fleet_statements, host_statements
from scheduler.domain.errors import Unavailable

ACCOUNT = Account(number="123456789012", region="eu-west-1")
TABLE_ACTIONS = {
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
}


def used(kind: str) -> Iterator[tuple[Fleet, FakeEc2, FakeClock]]:
    clock = FakeClock()
    ec2 = FakeFleet(clock, random.Random(1)) if kind == "spot-fleet" else FakeEc2(clock, random.Random(1))
    if isinstance(ec2, FakeFleet):
        yield SpotFleet(ec2, REQUEST_ID, clock=clock), ec2, clock
    elif kind == "asg":
        yield AutoScalingGroup(FakeAsg(ec2), ec2, GROUP, clock=clock), ec2, clock
    else:
        spot = ec2.launch(state="stopped", is_spot=True)
        assert spot is not None
        spot.is_persistent = True
        yield SingleInstance(ec2, spot.instance_id), ec2, clock


def calls_of(kind: str) -> set[str]:
    """Return every operation that the adapter uses in a life that has everything in it, as IAM names it."""
    ((fleet, ec2, clock),) = used(kind)
    fleet.faults()
    ec2.stock = 0
    with contextlib.suppress(Unavailable):
        fleet.set_target(1)
    for _ in range(4):
        clock.advance(60)
        fleet.describe()
    ec2.stock = None
    with contextlib.suppress(Unavailable):
        fleet.set_target(1)
    clock.advance(300)
    up = [member.instance_id for member in fleet.describe().members]
    fleet.end_self(up[0], replace=False)
    autoscaling = {name for name in ec2.faults.calls if hasattr(FakeAsg, name)}
    return {
        ("autoscaling:" if name in autoscaling else "ec2:") + "".join(word.title() for word in name.split("_"))
        for name in ec2.faults.calls
    }


def calls_without_work(kind: str) -> tuple[set[str], set[str]]:
    """Return what is called to look at a fleet in trouble, and what to lead it besides, as IAM names it."""
    ((fleet, ec2, clock),) = used(kind)
    fleet.describe()
    ec2.stock = 0
    asked = set(ec2.faults.calls)
    with contextlib.suppress(Unavailable):
        fleet.set_target(1)
    for _ in range(4):
        clock.advance(60)
        fleet.describe()
    ec2.stock = None
    with contextlib.suppress(Unavailable):
        fleet.set_target(1)
    clock.advance(300)
    up = [member.instance_id for member in fleet.describe().members]
    with contextlib.suppress(Unavailable):
        fleet.end(up[:1], replace=False)
    every = {name_of(name) for name in ec2.faults.calls if name not in asked} | {name_of(name) for name in asked}
    return {name for name in every if ":Describe" in name}, every


def name_of(call: str) -> str:
    service = "autoscaling:" if hasattr(FakeAsg, call) else "ec2:"
    return service + "".join(word.title() for word in call.split("_"))


def policy_of(role: Role, kind: str) -> list[Statement]:
    queues = [QueueAddress(name="q", account=None)]
    dlqs = [QueueAddress(name="d", account=None)]
    document = fleet_policy(role, kind, "the-fleet", ACCOUNT, state_table="state", queues=queues, dlqs=dlqs)
    found: list[Statement] = document["Statement"]
    return found


@pytest.mark.parametrize("kind", ["spot-fleet", "asg", "instance"])
def test_who_leads_without_working_may_do_what_the_adapter_calls_and_an_operator_only_look(kind: str) -> None:
    looks, leads = calls_without_work(kind)
    elsewhere = ("sqs:", "dynamodb:")
    of_leader = {action for action in actions(policy_of(Role.LEADER, kind)) if not action.startswith(elsewhere)}
    of_operator = {action for action in actions(policy_of(Role.OPERATOR, kind)) if not action.startswith(elsewhere)}
    assert (of_leader, of_operator) == (leads, looks)


@pytest.mark.parametrize("role", [Role.LEADER, Role.OPERATOR])
def test_neither_may_touch_a_task_or_a_picture(role: Role) -> None:
    statements = {each["Sid"]: each for each in policy_of(role, "asg")}
    assert statements["CountTasks"]["Resource"] == ["arn:aws:sqs:eu-west-1:123456789012:q"]
    assert statements["FindDeadLetterQueues"]["Resource"] == ["arn:aws:sqs:eu-west-1:123456789012:d"]
    assert statements["KeepTheFleetsState"]["Resource"] == ["arn:aws:dynamodb:eu-west-1:123456789012:table/state"]
    assert not any(action.startswith("s3:") for action in actions(list(statements.values())))
    changing = [each for each in statements.values() if each["Resource"] == ["*"]]
    assert all(":Describe" in action for each in changing for action in each["Action"])


def actions(statements: list[Statement]) -> set[str]:
    return {action for statement in statements for action in statement["Action"]}


@pytest.mark.parametrize("kind", ["spot-fleet", "asg", "instance"])
def test_allows_exactly_what_the_adapter_calls(kind: str) -> None:
    allowed = actions(fleet_statements(kind, "x", ACCOUNT, state_table="state"))
    assert allowed - TABLE_ACTIONS == calls_of(kind)


@pytest.mark.parametrize("kind", ["spot-fleet", "asg", "instance", "local"])
def test_whatever_changes_something_names_what_it_may_change(kind: str) -> None:
    for statement in fleet_statements(kind, "the-fleet", ACCOUNT, state_table="state"):
        (resource,) = statement["Resource"]
        changes = [action for action in statement["Action"] if ":Describe" not in action]
        assert bool(changes) is (resource != "*"), statement["Sid"]
        assert resource == "*" or "123456789012" in resource


def test_ends_instances_of_its_own_spot_fleet_only() -> None:
    statements = fleet_statements("spot-fleet", "sfr-1", ACCOUNT, state_table="state")
    (ending,) = [each for each in statements if "ec2:TerminateInstances" in each["Action"]]
    assert ending["Condition"] == {"StringEquals": {"ec2:ResourceTag/aws:ec2spot:fleet-request-id": "sfr-1"}}
    (setting,) = [each for each in statements if "ec2:ModifySpotFleetRequest" in each["Action"]]
    assert setting["Resource"] == ["arn:aws:ec2:eu-west-1:123456789012:spot-fleet-request/sfr-1"]


def test_changes_its_own_group_only() -> None:
    (changing,) = fleet_statements("asg", "sd-workers", ACCOUNT, state_table="state")[2:]
    assert changing["Resource"] == [
        "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:*:autoScalingGroupName/sd-workers"
    ]


def test_starts_and_stops_its_own_instance_only() -> None:
    account = Account(number="123456789012", region="cn-north-1", partition="aws-cn")
    (changing,) = fleet_statements("instance", "i-0123", account, state_table="state")[2:]
    assert changing["Resource"] == ["arn:aws-cn:ec2:cn-north-1:123456789012:instance/i-0123"]


def test_local_fleet_needs_the_table_alone() -> None:
    (table,) = fleet_statements("local", "http://127.0.0.1:1", ACCOUNT, state_table="state")
    assert set(table["Action"]) == TABLE_ACTIONS
    assert table["Resource"] == ["arn:aws:dynamodb:eu-west-1:123456789012:table/state"]


def test_a_worker_may_ask_for_its_price_and_answer_the_hooks_of_its_own_group() -> None:
    assert actions(host_statements("spot-fleet", "sfr-1", ACCOUNT)) == {"ec2:DescribeSpotPriceHistory"}
    assert host_statements("local", "http://127.0.0.1:1", ACCOUNT) == []
    _, seeing, answering = host_statements("asg", "sd-workers", ACCOUNT)
    assert seeing["Resource"] == ["*"]
    assert answering["Resource"] == [
        "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:*:autoScalingGroupName/sd-workers"
    ]
