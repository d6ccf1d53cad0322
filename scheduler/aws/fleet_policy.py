"""The IAM statements of a fleet's workers, of who leads it without working,
and of who watches it: exactly their calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from scheduler.aws.addresses import Account, QueueAddress

Statement = dict[str, Any]
ONLY_WORKERS = frozenset({"autoscaling:DescribePolicies", "ec2:DescribeSpotInstanceRequests", "ec2:StopInstances"})
"""What only doctor, and a worker that ends itself, asks for."""
KEEPING, SEEING = "KeepTheFleetsState", "SeeTheFleet"


class Role(StrEnum):
    """Whose policy is meant."""

    WORKER = "worker"
    LEADER = "autoscale"
    """`sd-scheduler autoscale` and the Lambda."""
    OPERATOR = "operator"
    """`sd-scheduler fleet`: who watches, pauses and drains."""


def fleet_policy(
    role: Role,
    kind: str,
    fleet_id: str,
    account: Account,
    *,
    state_table: str,
    queues: Sequence[QueueAddress],
    dlqs: Sequence[QueueAddress],
) -> dict[str, Any]:
    """Return the policy document for who leads the fleet without working, or only operates it.

    An operator writes records of the fleet's table and changes nothing in EC2; dead-letter queues are asked for their
    address only.
    """
    counting = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    statements: list[Statement] = [
        {
            "Sid": "CountTasks",
            "Effect": "Allow",
            "Action": counting,
            "Resource": [account.queue_arn(queue) for queue in queues],
        },
        {
            "Sid": "FindDeadLetterQueues",
            "Effect": "Allow",
            "Action": ["sqs:GetQueueUrl"],
            "Resource": [account.queue_arn(queue) for queue in dlqs],
        },
    ]
    for statement in fleet_statements(kind, fleet_id, account, state_table=state_table):
        actions = [action for action in statement["Action"] if action not in ONLY_WORKERS]
        is_seeing = statement["Sid"] in {SEEING, KEEPING}
        if actions and (is_seeing or role is Role.LEADER):
            statements.append({**statement, "Action": actions})
    return {"Version": "2012-10-17", "Statement": [each for each in statements if each["Resource"]]}


def fleet_statements(kind: str, fleet_id: str, account: Account, *, state_table: str) -> list[Statement]:
    """Return the statements for a fleet of a kind that `[autoscaling] fleet` takes; whoever starts capacity needs them
    too.

    EC2 and Auto Scaling cannot limit their Describe calls to a resource.
    """
    table = _allow(
        KEEPING,
        ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
        account.table_arn(state_table),
    )
    match kind:
        case "spot-fleet":
            return [table, *_spot_fleet(fleet_id, account)]
        case "asg":
            return [table, *_asg(fleet_id, account)]
        case "instance":
            return [table, *_instance(fleet_id, account)]
        case _:  # local: processes of this machine, which AWS knows nothing of
            return [table]


def host_statements(kind: str, fleet_id: str, account: Account) -> list[Statement]:
    """Return what a worker needs beside: the price of its instance, and answers to the hooks of its group."""
    if kind == "local":
        return []
    price = _allow("KnowThePrice", ["ec2:DescribeSpotPriceHistory"], "*")
    if kind != "asg":
        return [price]
    actions = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
    return [
        price,
        _allow("SeeTheHooks", ["autoscaling:DescribeLifecycleHooks"], "*"),
        _allow("AnswerTheHooks", actions, _group_arn(fleet_id, account)),
    ]


def _group_arn(group: str, account: Account) -> str:
    return (
        f"arn:{account.partition}:autoscaling:{account.region}:{account.number}:"
        f"autoScalingGroup:*:autoScalingGroupName/{group}"
    )


def _spot_fleet(request_id: str, account: Account) -> list[Statement]:
    return [
        _allow(
            SEEING,
            [
                "ec2:DescribeInstances",
                "ec2:DescribeSpotFleetInstances",
                "ec2:DescribeSpotFleetRequestHistory",
                "ec2:DescribeSpotFleetRequests",
            ],
            "*",
        ),
        _allow(
            "SetTheFleetsTarget", ["ec2:ModifySpotFleetRequest"], _ec2_arn(account, f"spot-fleet-request/{request_id}")
        ),
        _allow(
            "EndItsInstances",
            ["ec2:TerminateInstances"],
            _ec2_arn(account, "instance/*"),
            tag=("aws:ec2spot:fleet-request-id", request_id),
        ),
    ]


def _asg(group: str, account: Account) -> list[Statement]:
    return [
        _allow(
            SEEING,
            [
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribePolicies",
                "autoscaling:DescribeScalingActivities",
                "ec2:DescribeInstances",
            ],
            "*",
        ),
        _allow(
            "ChangeTheFleet",
            ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
            _group_arn(group, account),
        ),
    ]


def _instance(instance_id: str, account: Account) -> list[Statement]:
    return [
        _allow(SEEING, ["ec2:DescribeInstances", "ec2:DescribeSpotInstanceRequests"], "*"),
        _allow(
            "StartAndStopIt",
            ["ec2:StartInstances", "ec2:StopInstances"],
            _ec2_arn(account, f"instance/{instance_id}"),
        ),
    ]


def _ec2_arn(account: Account, resource: str) -> str:
    return f"arn:{account.partition}:ec2:{account.region}:{account.number}:{resource}"


def _allow(sid: str, actions: list[str], resource: str, *, tag: tuple[str, str] | None = None) -> Statement:
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": [resource]}
    if tag is not None:
        statement["Condition"] = {"StringEquals": {f"ec2:ResourceTag/{tag[0]}": tag[1]}}
    return statement
