"""What doctor says of a fleet: its own faults, its bounds, and alarms that change it too."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from fakes import FakeClock

from scheduler.aws import check_fleet
from scheduler.aws.checking import Asking, Finding, Verdict
from scheduler.domain.errors import AccessDenied

GROUP_POLICY = (
    "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:uuid:autoScalingGroupName/{group}:policyName/out"
)
FLEET_POLICY = (
    "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:uuid:resource/ec2/spot-fleet-request/sfr-1:policyName/out"
)
LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:shutdown-gpu"
TOPIC = "arn:aws:sns:us-east-1:123456789012:tell-me"
STOP = "arn:aws:automate:us-east-1:ec2:stop"
OLD_STOP = "arn:aws:swf:us-east-1:123456789012:action/actions/AWS_EC2.InstanceId.Stop/1.0"
RECOVER = "arn:aws:automate:us-east-1:ec2:recover"


class Alarms:
    """A CloudWatch client with these alarms, two on a page."""

    def __init__(self, *alarms: dict[str, Any], error: str = "") -> None:
        self.alarms = alarms
        self.error = error

    def describe_alarms(self, *, MaxRecords: int, NextToken: str = "0") -> dict[str, Any]:  # noqa: N803 - boto3's
        if self.error:
            raise ClientError({"Error": {"Code": self.error, "Message": "no"}}, "DescribeAlarms")
        start = int(NextToken)
        more = {"NextToken": str(start + 2)} if start + 2 < len(self.alarms) else {}
        return {"MetricAlarms": list(self.alarms[start : start + 2]), **more}


def alarm(action: str, **also: Any) -> dict[str, Any]:
    queue = [{"Name": "QueueName", "Value": "sd-tasks"}]
    return {"AlarmName": "the-alarm", "AlarmActions": [action], "Dimensions": queue} | also


def found(fleet_id: str, *alarms: dict[str, Any], error: str = "") -> list[Finding]:
    client: Any = Alarms(*alarms, error=error)
    asking = Asking(clock=FakeClock())
    return list(check_fleet.alarms("alarms", client, asking, fleet_id=fleet_id, queues=["sd-tasks"]))


FORMULA = {
    "Dimensions": [],
    "Metrics": [
        {"Id": "e", "Expression": "a / 2"},
        {"Id": "a", "MetricStat": {"Metric": {"Dimensions": [{"Name": "QueueName", "Value": "sd-tasks"}]}}},
    ],
}
OTHER_QUEUE = {"Dimensions": [{"Name": "QueueName", "Value": "other"}]}
ON_INSTANCE = {"Dimensions": [{"Name": "InstanceId", "Value": "i-1"}]}


@pytest.mark.parametrize(
    ("fleet_id", "conflicting", "words"),
    [
        ("i-1", alarm(LAMBDA), "watches the queue and calls"),
        ("i-1", alarm(LAMBDA, **FORMULA), "watches the queue and calls"),
        ("i-1", alarm(TOPIC, OKActions=[LAMBDA]), "watches the queue and calls"),
        ("i-1", alarm(TOPIC, InsufficientDataActions=[LAMBDA]), "watches the queue and calls"),
        ("g", alarm(GROUP_POLICY.format(group="g")), "changes the fleet's size"),
        ("g", alarm(GROUP_POLICY.format(group="g"), **OTHER_QUEUE), "changes the fleet's size"),
        ("sfr-1", alarm(FLEET_POLICY), "changes the fleet's size"),
        ("i-1", alarm(STOP, **ON_INSTANCE), "makes the instance stop"),
        ("i-1", alarm(OLD_STOP, **ON_INSTANCE), "makes the instance stop"),
    ],
)
def test_alarm_that_changes_the_fleet_too_is_refused(fleet_id: str, conflicting: dict[str, Any], words: str) -> None:
    (finding,) = found(fleet_id, alarm(TOPIC), alarm(TOPIC), conflicting)
    assert finding.verdict is Verdict.FAIL
    assert f"the alarm the-alarm {words}" in finding.found


@pytest.mark.parametrize(
    ("fleet_id", "harmless"),
    [
        ("g", alarm(TOPIC)),
        ("g", alarm(LAMBDA, **OTHER_QUEUE)),
        ("g", alarm(LAMBDA, ActionsEnabled=False)),
        ("g", alarm(GROUP_POLICY.format(group="g-2"))),
        ("g-2", alarm(GROUP_POLICY.format(group="g"))),
        ("i-2", alarm(STOP, **ON_INSTANCE)),
        ("i-1", alarm(RECOVER, **ON_INSTANCE)),
        ("g", {"AlarmName": "bare"}),
    ],
)
def test_alarm_that_leaves_the_fleet_alone_is_well(fleet_id: str, harmless: dict[str, Any]) -> None:
    (finding,) = found(fleet_id, harmless)
    assert (finding.verdict, finding.found) == (Verdict.OK, "none of 1 changes the fleet")


def test_alarms_that_may_not_be_read_are_skipped() -> None:
    (finding,) = found("g", error="AccessDenied")
    assert finding.verdict is Verdict.SKIPPED
    assert "cloudwatch:DescribeAlarms" in finding.advice


def test_faults_of_the_fleet_fail_with_their_advice() -> None:
    one, two = check_fleet.settings("fleet", lambda: ["it is odd: make it even", "it is gone: see https://x: y"])
    assert (one.verdict, one.found, one.advice) == (Verdict.FAIL, "it is odd", "make it even")
    assert (two.found, two.advice) == ("it is gone", "see https://x: y")


def test_fleet_without_faults_is_well() -> None:
    (finding,) = check_fleet.settings("fleet", list)
    assert finding.verdict is Verdict.OK


def test_fleet_that_cannot_be_looked_at_fails() -> None:
    def refuse() -> list[str]:
        raise AccessDenied("describing it: no")

    (finding,) = check_fleet.settings("fleet", refuse)
    assert (finding.verdict, finding.found) == (Verdict.FAIL, "describing it: no")


@pytest.mark.parametrize(
    ("min_size", "max_size", "told"),
    [
        (0, None, []),
        (1, 4, []),
        (2, 4, ["although min_capacity is 1"]),
        (0, 3, ["although max_capacity is 4"]),
        (3, 3, ["although min_capacity is 1", "although max_capacity is 4"]),
    ],
)
def test_narrower_bounds_of_the_fleet_are_told(min_size: int, max_size: int | None, told: list[str]) -> None:
    findings = bounds(min_size=min_size, max_size=max_size)
    assert [finding.verdict for finding in findings] == [Verdict.WARN] * len(told)
    assert all(words in finding.found for words, finding in zip(told, findings, strict=True))


@pytest.mark.parametrize(("policy", "most", "told"), [("idle-stop", 4, 1), ("idle-stop", 1, 0), ("backlog", 4, 0)])
def test_more_workers_than_the_policy_ever_wants_are_told(policy: str, most: int, told: int) -> None:
    assert len(bounds(policy=policy, min_capacity=0, max_capacity=most)) == told


def bounds(**facts: Any) -> list[Finding]:
    usual: dict[str, Any] = {"policy": "backlog", "min_capacity": 1, "max_capacity": 4, "min_size": 0, "max_size": None}
    return list(check_fleet.bounds("fleet", **usual | facts))
