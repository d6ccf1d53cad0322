"""One EC2 instance that is started when there is work and stops itself when there has been none.

A stopped instance keeps its id when it starts again, and EC2's calls cannot be fenced: a leader that slept could stop a
host that has started anew and works. So nobody but its own worker ever stops it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from scheduler.autoscale.fleets import instances
from scheduler.autoscale.fleets.port import Condition, FleetView
from scheduler.aws.errors import translated
from scheduler.domain.errors import Unavailable

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import InstanceTypeDef

UP = frozenset({"pending", "running"})
OVER = frozenset({"shutting-down", "terminated"})
OWNERS = {"aws:autoscaling:groupName": "an Auto Scaling group", "aws:ec2spot:fleet-request-id": "a Spot Fleet"}


class SingleInstance:
    """The instance of that id. Its target is 1 while it is up or on its way up, else 0."""

    lowers_target = False
    replaces = False

    def __init__(self, ec2: EC2Client, instance_id: str) -> None:
        self.name = f"instance {instance_id}"
        self._ec2 = ec2
        self._id = instance_id

    def describe(self) -> FleetView:
        """Return the fleet of one; while it is stopping it cannot be started, so a change is under way."""
        with translated(f"describing {self.name}"):
            instance = self._instance()
        if instance is None:
            return FleetView(condition=Condition.ENDED, target=0, members=(), trouble="there is no such instance")
        state = instance["State"]["Name"]
        condition = Condition.MODIFYING if state == "stopping" else Condition.ACTIVE
        return FleetView(
            condition=Condition.ENDED if state in OVER else condition,
            target=int(state in UP),
            members=(instances.member_of(instance),),
            max_size=1,
            trouble=_trouble(instance),
        )

    def set_target(self, capacity: int) -> None:
        """Start the instance, if any capacity is asked for; refused while it is stopping, and due again then."""
        if capacity < 1:
            return
        with translated(f"starting {self.name}"):
            instance = self._instance()
            if instance is None or instance["State"]["Name"] in OVER:
                raise Unavailable(f"{self.name} is gone: it cannot be started")
            if instance["State"]["Name"] not in UP:
                self._ec2.start_instances(InstanceIds=[self._id])

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:  # noqa: ARG002 - nothing is ended
        """Refuse, with Unavailable: a worker that cannot stop its host any more needs a person.

        Whoever calls has seen one boot dead, and EC2 would stop whichever boot it finds.
        """
        if self._id in instance_ids:
            raise Unavailable(
                f"{self.name} should have stopped itself and did not. Nobody else may stop it, because it may have "
                f"started anew: look at it, and stop it by hand (aws ec2 stop-instances --instance-ids {self._id})"
            )

    def end_self(self, instance_id: str, *, replace: bool) -> None:  # noqa: ARG002 - nothing takes its place
        """Stop this instance. Nothing takes its place: it starts again when there is work."""
        with translated(f"stopping {instance_id}"):
            self._ec2.stop_instances(InstanceIds=[instance_id])

    def faults(self) -> list[str]:
        """Return why the instance could not be stopped and started. Raises Unavailable."""
        with translated(f"describing {self.name}"):
            instance = self._instance()
            if instance is None or instance["State"]["Name"] in OVER:
                return [f"{self.name} is not there: correct fleet_id"]
            is_one_time = self._is_one_time(instance)
        return list(_faults(instance, is_one_time=is_one_time))

    def _instance(self) -> InstanceTypeDef | None:
        return next(instances.look_up(self._ec2, [self._id]), None)

    def _is_one_time(self, instance: InstanceTypeDef) -> bool:
        request_id = instance.get("SpotInstanceRequestId")
        if not request_id:
            return False
        answer = self._ec2.describe_spot_instance_requests(SpotInstanceRequestIds=[request_id])
        return any(request.get("Type") != "persistent" for request in answer["SpotInstanceRequests"])


def _trouble(instance: InstanceTypeDef) -> str:
    """Return what took it down, if that was AWS: no capacity, an interruption, a fault of its own."""
    reason = instance.get("StateReason", {})
    if instance["State"]["Name"] in UP or not reason.get("Code", "").startswith("Server."):
        return ""
    return reason.get("Message", reason["Code"])


def _faults(instance: InstanceTypeDef, *, is_one_time: bool) -> Iterator[str]:
    if is_one_time:
        yield "it is a one-time Spot Instance, which cannot be stopped: use a persistent request, or on demand"
    if instance.get("RootDeviceType", "ebs") != "ebs":
        yield "its root is an instance store, so that it cannot be stopped: use an image with an EBS root"
    for tag in instance.get("Tags", []):
        if owner := OWNERS.get(tag.get("Key", "")):
            yield f"it belongs to {owner}, which replaces it when it stops: set fleet to that, or take it out"
