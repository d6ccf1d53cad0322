"""Doctor's checks of a fleet over the product's own clients, on moto."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aws_servers import REGION, Cloud, aws_environ, unique

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.build import build_fleet
from scheduler.autoscale.fleets.instance import SingleInstance
from scheduler.autoscale.fleets.local import LocalFleet
from scheduler.autoscale.fleets.spot_fleet import SpotFleet
from scheduler.aws import check_fleet, operator_clients
from scheduler.aws.checking import Asking, Verdict
from scheduler.aws.fleet_clients import build_autoscaling, build_cloudwatch, build_ec2
from scheduler.cli import fleet_checks
from scheduler.config import load
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import AccessDenied

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:shutdown-gpu"


@pytest.fixture
def group(moto: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A group as the console makes it."""
    for name, value in aws_environ(moto.url).items():
        monkeypatch.setenv(name, value)
    name = unique("group")
    ec2, autoscaling = build_ec2(REGION), build_autoscaling(REGION)
    try:
        made = ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": "ami-12c6146b", "InstanceType": "g4dn.xlarge"}
        )
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=1,
            MaxSize=2,
            AvailabilityZones=["us-east-1a"],
            LaunchTemplate={"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"], "Version": "1"},
        )
        yield name
    finally:
        ec2.close()
        autoscaling.close()


def test_group_as_it_comes_is_refused_until_it_is_mended(group: str) -> None:
    fleet = build_fleet("asg", group, region=REGION, clock=SystemClock())
    view = fleet.describe()
    told = [finding.found for finding in check_fleet.settings("fleet", fleet.faults)]
    assert told == [
        "new instances are not protected from scale-in",
        "instances that are not protected from scale-in",
        "it may end instances to balance zones",
    ]
    bounds = check_fleet.bounds(
        "fleet", policy="backlog", min_capacity=0, max_capacity=4, min_size=view.min_size, max_size=view.max_size
    )
    assert len(list(bounds)) == 2
    autoscaling = build_autoscaling(REGION)
    autoscaling.update_auto_scaling_group(AutoScalingGroupName=group, NewInstancesProtectedFromScaleIn=True)
    autoscaling.set_instance_protection(
        AutoScalingGroupName=group,
        InstanceIds=[member.instance_id for member in view.members],
        ProtectedFromScaleIn=True,
    )
    autoscaling.suspend_processes(AutoScalingGroupName=group, ScalingProcesses=["AZRebalance"])
    autoscaling.close()
    (mended,) = check_fleet.settings("fleet", fleet.faults)
    assert mended.verdict is Verdict.OK


def test_alarm_that_calls_a_function_for_the_queue_is_refused(group: str) -> None:
    cloudwatch, queue = build_cloudwatch(REGION), unique("queue")
    asking = Asking(clock=SystemClock())

    def verdicts(name: str) -> set[Verdict]:
        found = check_fleet.alarms("alarms", cloudwatch, asking, fleet_id=group, queues=[name])
        return {finding.verdict for finding in found}

    cloudwatch.put_metric_alarm(
        AlarmName=unique("QueueEmptyFor30Min"),
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": queue}],
        Statistic="Average",
        Period=300,
        EvaluationPeriods=6,
        Threshold=0,
        ComparisonOperator="LessThanOrEqualToThreshold",
        AlarmActions=[FUNCTION],
    )
    assert verdicts(queue) == {Verdict.FAIL}
    assert verdicts(unique("queue")) == {Verdict.OK}
    cloudwatch.close()


def test_of_a_group_that_is_not_there_nothing_is_called_well(group: str) -> None:
    lines = {"aws_region": REGION, "sqs_queue_url": "tasks", "dynamodb_table": "records", "s3_bucket": "pictures"}
    given = {f"SCHEDULER_AWS_{key.upper()}": value for key, value in lines.items()}
    fleet = {"SCHEDULER_AUTOSCALING_FLEET": "asg", "SCHEDULER_AUTOSCALING_FLEET_ID": f"not-{group}"}
    found = list(fleet_checks.findings(operator_clients.build(REGION), load(None, given | fleet)))
    assert {finding.verdict for finding in found} == {Verdict.FAIL}
    assert any("is not there" in finding.found for finding in found)


def test_each_kind_has_its_adapter(group: str) -> None:
    clock = SystemClock()
    built = {
        kind: type(build_fleet(kind, fleet_id, region=REGION, clock=clock))
        for kind, fleet_id in {
            "asg": group,
            "instance": "i-0123456789abcdef0",
            "local": "http://127.0.0.1:1",
            "spot-fleet": "sfr-01234567",
        }.items()
    }
    assert built == {
        "asg": AutoScalingGroup,
        "instance": SingleInstance,
        "local": LocalFleet,
        "spot-fleet": SpotFleet,
    }
    with pytest.raises(ValueError, match="bus"):
        build_fleet("bus", "x", region=REGION, clock=clock)


@pytest.mark.parametrize("build", [build_ec2, build_autoscaling, build_cloudwatch])
def test_no_credentials_are_told_as_such(build: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    assert callable(build)
    with pytest.raises(AccessDenied, match="credentials"):
        build(REGION)
