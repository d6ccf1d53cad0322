"""A Spot Fleet request of the type `maintain`: its target is lowered first, then the workers that consented are ended.

Ended before that, they would be replaced. Every change says `noTermination`, or EC2 would end an excess itself, by
price and pool, busy or not. While the fleet is `modifying` it shows the old target, and a second change is unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scheduler.autoscale.fleets import instances
from scheduler.autoscale.fleets.port import Condition, FleetView
from scheduler.aws.errors import code_of, translated
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import SpotFleetRequestConfigDataOutputTypeDef, SpotFleetRequestConfigTypeDef

CONDITIONS = {
    "submitted": Condition.MODIFYING,
    "active": Condition.ACTIVE,
    "modifying": Condition.MODIFYING,
}
SHORT = frozenset({"error", "pending_fulfillment"})
TROUBLE_S = 900.0
"""Errors in the fleet's history that are older do not explain why capacity does not come now."""
NO_FLEET = "InvalidSpotFleetRequestId.NotFound"


class SpotFleet:
    """The fleet of one request, ``sfr-...``."""

    lowers_target = True
    replaces = True

    def __init__(self, ec2: EC2Client, request_id: str, *, clock: Clock) -> None:
        self.name = f"spot-fleet {request_id}"
        self._ec2 = ec2
        self._id = request_id
        self._clock = clock

    def describe(self) -> FleetView:
        """Return the fleet; one that AWS knows no more has ended."""
        with translated(f"describing {self.name}"):
            request = self._request()
            if request is None:
                return FleetView(condition=Condition.ENDED, target=0, members=(), trouble="there is no such fleet")
            found = instances.members(self._ec2, list(self._listed()), now_s=self._clock.now())
            return FleetView(
                condition=_condition(request),
                target=request["SpotFleetRequestConfig"]["TargetCapacity"],
                members=tuple(found.values()),
                trouble=self._trouble(request),
            )

    def set_target(self, capacity: int) -> None:
        """Set the target; refused while another change is under way."""
        with translated(f"setting the target of {self.name} to {capacity}"):
            request = self._request()
            if request is None or _condition(request) is not Condition.ACTIVE:
                state = "gone" if request is None else request["SpotFleetRequestState"]
                raise Unavailable(f"{self.name} is {state}: its target can be changed only while it is active")
            if fault := _type_fault(request["SpotFleetRequestConfig"]):
                raise Unavailable(fault)
            if request["SpotFleetRequestConfig"]["TargetCapacity"] == capacity:
                return
            answer = self._ec2.modify_spot_fleet_request(
                SpotFleetRequestId=self._id,
                TargetCapacity=capacity,
                ExcessCapacityTerminationPolicy="noTermination",
            )
        if not answer.get("Return", False):
            raise Unavailable(f"AWS did not change {self.name}")

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:  # noqa: ARG002 - the target decides
        """Terminate instances. The target decides whether others come, so it has been lowered for those that go."""
        instances.terminate(self._ec2, instance_ids)

    def end_self(self, instance_id: str, *, replace: bool) -> None:
        """Terminate this instance."""
        self.end([instance_id], replace=replace)

    def faults(self) -> list[str]:
        """Return what is wrong with the request. Raises Unavailable."""
        with translated(f"describing {self.name}"):
            request = self._request()
        if request is None:
            return [f"{self.name} is not there: correct fleet_id"]
        if _condition(request) is Condition.ENDED:
            return [f"{self.name} is {request['SpotFleetRequestState']}: make a new one and correct fleet_id"]
        return list(_faults(request["SpotFleetRequestConfig"]))

    def _request(self) -> SpotFleetRequestConfigTypeDef | None:
        try:
            answer = self._ec2.describe_spot_fleet_requests(SpotFleetRequestIds=[self._id])
        except ClientError as error:
            if code_of(error) == NO_FLEET:
                return None
            raise
        return next(iter(answer.get("SpotFleetRequestConfigs", [])), None)

    def _listed(self) -> Iterator[str]:
        token: dict[str, Any] = {}
        while True:
            answer = self._ec2.describe_spot_fleet_instances(
                SpotFleetRequestId=self._id, MaxResults=instances.PAGE, **token
            )
            for each in answer.get("ActiveInstances", []):
                yield each["InstanceId"]
            if not answer.get("NextToken"):
                return
            token = {"NextToken": answer["NextToken"]}

    def _trouble(self, request: SpotFleetRequestConfigTypeDef) -> str:
        """Return the newest error of a fleet that is short of instances; who may not read them does without."""
        if request.get("ActivityStatus") not in SHORT:
            return ""
        since = datetime.fromtimestamp(self._clock.now() - TROUBLE_S, UTC)
        try:
            with translated("reading its history"):
                answer = self._ec2.describe_spot_fleet_request_history(
                    SpotFleetRequestId=self._id, EventType="error", StartTime=since
                )
        except Unavailable:
            return ""
        records = answer.get("HistoryRecords", [])
        if not records:
            return ""
        said = max(records, key=lambda record: record["Timestamp"]).get("EventInformation", {})
        return f"{said.get('EventSubType', 'error')}: {said.get('EventDescription', '')}"


def _condition(request: SpotFleetRequestConfigTypeDef) -> Condition:
    return CONDITIONS.get(request["SpotFleetRequestState"], Condition.ENDED)


def _type_fault(config: SpotFleetRequestConfigDataOutputTypeDef) -> str:
    kind = config.get("Type", "maintain")
    if kind == "maintain":
        return ""
    return f"the Spot Fleet is of the type {kind}, which AWS never resizes: make one of the type maintain"


def _faults(config: SpotFleetRequestConfigDataOutputTypeDef) -> Iterator[str]:
    if fault := _type_fault(config):
        yield fault
    if weights := sorted(set(_weights(config)) - {1.0}):
        said = ", ".join(f"{weight:g}" for weight in weights)
        yield f"instances count {said} of the target: leave WeightedCapacity out, so that each counts 1"
    if (unit := config.get("TargetCapacityUnitType", "units")) != "units":
        yield f"its target is counted in {unit}: count it in units, which are instances"
    if "ValidUntil" in config:
        ends = f"{config['ValidUntil']:%Y-%m-%d}"
        if config.get("TerminateInstancesWithExpiration", False):
            yield f"it ends at {ends} and kills its instances then, busy or not: make one without ValidUntil"
        else:
            yield f"from {ends} on it launches nothing: make one without ValidUntil"
    rebalance = config.get("SpotMaintenanceStrategies", {}).get("CapacityRebalance", {})
    if rebalance.get("ReplacementStrategy") == "launch-before-terminate":
        yield "its rebalancing terminates instances, busy or not: use the replacement strategy launch, or none"
    if (behaviour := config.get("InstanceInterruptionBehavior", "terminate")) != "terminate":
        yield (
            f"an instance that is reclaimed is to {behaviour} and stays in the fleet without working: "
            "set InstanceInterruptionBehavior to terminate"
        )


def _weights(config: SpotFleetRequestConfigDataOutputTypeDef) -> Iterator[float]:
    for specification in config.get("LaunchSpecifications", []):
        yield specification.get("WeightedCapacity", 1.0)
    for template in config.get("LaunchTemplateConfigs", []):
        for override in template.get("Overrides", []):
            yield override.get("WeightedCapacity", 1.0)
