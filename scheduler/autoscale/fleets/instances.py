"""Instances as EC2 itself shows and ends them, whatever fleet they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scheduler.autoscale.fleets.port import Life, Member
from scheduler.aws.errors import code_of, translated

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef

FILTER_VALUES = 200
"""So many values EC2 takes in one filter."""
END_AT_ONCE = 100
PAGE = 1000
UNKNOWN = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})
SPOILS_THE_OTHERS = UNKNOWN | {
    "IncorrectInstanceState",
    "OperationNotPermitted",
    "UnauthorizedOperation",
    "UnsupportedOperation",
}
"""Refusals on account of one instance, for which EC2 ends none of a batch."""
LIVES = {"pending": Life.PENDING, "running": Life.RUNNING}


def look_up(ec2: EC2Client, instance_ids: Sequence[str]) -> Iterator[InstanceTypeDef]:
    """Yield those of the instances that EC2 knows, in no order. Raises ClientError.

    They are asked for by a filter, because asked for by id, one that EC2 has forgotten hides all others.
    """
    for some in _chunks(instance_ids, FILTER_VALUES):
        token: dict[str, Any] = {}
        while True:
            answer = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": some}], MaxResults=PAGE, **token)
            for reservation in answer.get("Reservations", []):
                yield from reservation.get("Instances", [])
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}


def members(ec2: EC2Client, instance_ids: Sequence[str], *, now_s: float) -> dict[str, Member]:
    """Return the members with these ids. Raises ClientError.

    EC2's lists lag: one that a fleet names and EC2 does not show yet has been launched just now.
    """
    found = {instance["InstanceId"]: member_of(instance) for instance in look_up(ec2, instance_ids)}
    return {one: found.get(one) or Member(instance_id=one, life=Life.PENDING, launched_s=now_s) for one in instance_ids}


def member_of(instance: InstanceTypeDef) -> Member:
    """Return an instance of DescribeInstances as a member."""
    return Member(
        instance_id=instance["InstanceId"],
        life=LIVES.get(instance["State"]["Name"], Life.ENDING),
        launched_s=instance["LaunchTime"].timestamp(),
    )


def terminate(ec2: EC2Client, instance_ids: Sequence[str]) -> None:
    """Terminate instances; those that EC2 does not know count as ended. Raises Unavailable.

    One that cannot be ended does not spoil the others: EC2 refuses a batch as a whole, so each is tried alone then.
    """
    refused: dict[str, ClientError] = {}
    for some in _chunks(instance_ids, END_AT_ONCE):
        with translated(f"terminating {', '.join(some)}"):
            try:
                ec2.terminate_instances(InstanceIds=some)
            except ClientError as error:
                if code_of(error) not in SPOILS_THE_OTHERS:
                    raise
                refused |= _terminate_each(ec2, some)
    if refused:
        with translated(f"terminating {', '.join(refused)}"):
            raise next(iter(refused.values()))


def _terminate_each(ec2: EC2Client, instance_ids: Iterable[str]) -> dict[str, ClientError]:
    refused: dict[str, ClientError] = {}
    for one in instance_ids:
        try:
            ec2.terminate_instances(InstanceIds=[one])
        except ClientError as error:
            if code_of(error) not in SPOILS_THE_OTHERS:
                raise
            if code_of(error) not in UNKNOWN:
                refused[one] = error
    return refused


def _chunks(values: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
