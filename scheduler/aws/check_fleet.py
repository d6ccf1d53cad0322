"""Doctor's checks of the fleet: its own settings, its bounds, and alarms that change it behind the scheduler's back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from scheduler.aws.checking import Asking, Finding, NotAnswered, fail, ok, skipped, warn
from scheduler.domain.errors import Unavailable

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.type_defs import MetricAlarmTypeDef

MOST_ALARMS = 5000
SIZE_ACTIONS = ("stop", "terminate", "reboot")
"""What an alarm may do to an instance by itself that ends what it works on."""


def settings(check: str, faults: Callable[[], Sequence[str]]) -> Iterator[Finding]:
    """Yield a failed finding for each of the fleet's own faults."""
    try:
        found = faults()
    except Unavailable as error:
        yield fail(
            check, error.message, "see whether these credentials may look at the fleet, and whether AWS is reached"
        )
        return
    for fault in found:
        said, _, advice = fault.partition(": ")
        yield fail(check, said, advice)
    if not found:
        yield ok(check, "its settings let the scheduler change it without killing work")


def bounds(
    check: str, *, policy: str, min_capacity: int, max_capacity: int, min_size: int, max_size: int | None
) -> Iterator[Finding]:
    """Yield a warning where the fleet's own bounds (`min_size`, `max_size`)
    or the policy's are narrower than the configured.
    """
    if policy == "idle-stop" and max_capacity > 1:
        found = f"policy idle-stop never asks for a second worker, although max_capacity is {max_capacity}"
        yield warn(check, found, "set max_capacity = 1, or another policy")
    if min_capacity < min_size:
        found = f"the fleet keeps {min_size} workers, although min_capacity is {min_capacity}"
        yield warn(check, found, f"lower its minimum, or set min_capacity = {min_size}")
    if max_size is not None and max_capacity > max_size:
        found = f"the fleet takes {max_size} workers at most, although max_capacity is {max_capacity}"
        yield warn(check, found, f"raise its maximum, or set max_capacity = {max_size}")


def alarms(
    check: str, cloudwatch: CloudWatchClient, asking: Asking, *, fleet_id: str, queues: Iterable[str]
) -> Iterator[Finding]:
    """Yield a failed finding for each alarm that changes the fleet too; `queues` are names. Changes nothing."""
    try:
        found = list(_all_alarms(cloudwatch, asking))
    except NotAnswered as error:
        yield skipped(check, f"not looked at: {error}", "allow cloudwatch:DescribeAlarms to check")
        return
    conflicts = [(each, why) for each in found if (why := conflict(each, fleet_id=fleet_id, queues=set(queues)))]
    for alarm, why in conflicts:
        advice = "delete the alarm, or switch its actions off: two who decide undo each other's work and kill tasks"
        yield fail(check, f"the alarm {alarm['AlarmName']} {why}", advice)
    if not conflicts:
        yield ok(check, f"none of {len(found)} changes the fleet")


def conflict(alarm: MetricAlarmTypeDef, *, fleet_id: str, queues: set[str]) -> str:
    """Say how an alarm would change the fleet; empty when it would not.

    A function that an alarm on the queue calls is taken for one that starts or stops workers: what else would it do at
    once? Alarms that tell people go by way of a topic, and whoever listens there cannot be seen from here.
    """
    if not alarm.get("ActionsEnabled", True):
        return ""
    actions = [
        *alarm.get("AlarmActions", []),
        *alarm.get("OKActions", []),
        *alarm.get("InsufficientDataActions", []),
    ]
    dimensions = list(_dimensions(alarm))
    for action in actions:
        if f"autoScalingGroupName/{fleet_id}:" in action or f"spot-fleet-request/{fleet_id}:" in action:
            return "changes the fleet's size"
        if ("InstanceId", fleet_id) in dimensions and _does_to_instance(action) in SIZE_ACTIONS:
            return f"makes the instance {_does_to_instance(action)}"
        if action.split(":")[2:3] == ["lambda"] and any(("QueueName", name) in dimensions for name in queues):
            return f"watches the queue and calls {action}"
    return ""


def _does_to_instance(action: str) -> str:
    """Return the verb of an EC2 action: arn:aws:automate:REGION:ec2:stop,
    or arn:aws:swf:...AWS_EC2.InstanceId.Stop/1.0.
    """
    fields = action.split(":")
    if fields[2:3] == ["automate"]:
        return fields[-1]
    if fields[2:3] == ["swf"]:
        return action.rpartition("/")[0].rpartition(".")[2].lower()
    return ""


def _dimensions(alarm: MetricAlarmTypeDef) -> Iterator[tuple[str, str]]:
    """Yield what an alarm watches, directly or as a term of its formula."""
    watched = [alarm.get("Dimensions", [])]
    watched += [each.get("MetricStat", {}).get("Metric", {}).get("Dimensions", []) for each in alarm.get("Metrics", [])]
    for dimensions in watched:
        for dimension in dimensions:
            yield dimension.get("Name", ""), dimension.get("Value", "")


def _all_alarms(cloudwatch: CloudWatchClient, asking: Asking) -> Iterator[MetricAlarmTypeDef]:
    token: dict[str, Any] = {}
    for _ in range(MOST_ALARMS // 100):
        answer = asking.ask(partial(cloudwatch.describe_alarms, MaxRecords=100, **token))
        yield from answer.get("MetricAlarms", [])
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}
