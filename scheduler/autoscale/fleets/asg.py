"""An Auto Scaling group: one call ends an instance and lowers the target with it, so the target is never lowered for
it.

Whatever lowers the target otherwise has the group choose whom to kill. So it is lowered only as far as instances have
not been launched, new instances are protected from scale-in, and what ends them for reasons of its own is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace as altered
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from scheduler.autoscale.fleets import instances
from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member
from scheduler.aws.errors import code_of, translated
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from types_boto3_ec2 import EC2Client

LEAVING = ("Terminating", "Terminated")
NOT_COUNTED = ("Standby", "EnteringStandby", "Detaching", "Detached", "Warmed:")
"""An instance in these states does not count towards the group's target: a person has set it aside."""
NEEDED_PROCESSES = frozenset({"Launch", "Terminate"})


class AutoScalingGroup:
    """The group of that name."""

    lowers_target = False
    replaces = True

    def __init__(self, autoscaling: AutoScalingClient, ec2: EC2Client, group: str, *, clock: Clock) -> None:
        self.name = f"asg {group}"
        self._autoscaling = autoscaling
        self._ec2 = ec2
        self._group_name = group
        self._clock = clock

    def describe(self) -> FleetView:
        """Return the group; one that is not there, or is being deleted, has ended."""
        with translated(f"describing {self.name}"):
            group = self._group()
            if group is None:
                return FleetView(condition=Condition.ENDED, target=0, members=(), trouble="there is no such group")
            states = _states(group)
            found = instances.members(self._ec2, list(states), now_s=self._clock.now())
        members = tuple(_seen_by_group(member, states[one]) for one, member in found.items())
        alive = sum(member.life is not Life.ENDING for member in members)
        return FleetView(
            condition=Condition.ENDED if "Status" in group else Condition.ACTIVE,  # only one that is deleted has it
            target=group["DesiredCapacity"],
            members=members,
            min_size=group["MinSize"],
            max_size=group["MaxSize"],
            trouble=self._trouble() if alive < group["DesiredCapacity"] else "",
        )

    def set_target(self, capacity: int) -> None:
        """Set the desired capacity, within MinSize and MaxSize, and never below the instances there are."""
        with translated(f"setting the target of {self.name} to {capacity}"):
            group = self._group()
            if group is None:
                raise Unavailable(f"there is no group {self._group_name}")
            desired = group["DesiredCapacity"]
            capacity = min(max(capacity, group["MinSize"]), group["MaxSize"])
            if capacity < desired:
                alive = sum(not state.startswith(LEAVING) for state in _states(group).values())
                capacity = min(desired, max(capacity, alive))
            if capacity != desired:
                self._autoscaling.set_desired_capacity(
                    AutoScalingGroupName=self._group_name, DesiredCapacity=capacity, HonorCooldown=False
                )

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:
        """Terminate instances, each lowering the target in the same call unless another is to come.

        At MinSize the group gets another in any case, for it would refuse to end one otherwise.
        """
        with translated(f"describing {self.name}"):
            group = self._group()
        if group is None:
            return
        states = _states(group)
        spare = group["DesiredCapacity"] - group["MinSize"]
        failed: list[Unavailable] = []
        for one in instance_ids:
            if states.get(one, LEAVING[0]).startswith(LEAVING):
                continue
            try:
                with translated(f"terminating {one} in {self.name}"):
                    self._terminate(one, lowers=not replace and spare > 0)
            except Unavailable as error:
                failed.append(error)
            else:
                spare -= not replace
        if failed:
            raise failed[0]

    def end_self(self, instance_id: str, *, replace: bool) -> None:
        """Terminate this instance."""
        self.end([instance_id], replace=replace)

    def faults(self) -> list[str]:
        """Return what is wrong with the group. Raises Unavailable."""
        with translated(f"describing {self.name}"):
            group = self._group()
            if group is None:
                return [f"{self.name} is not there: correct fleet_id"]
            policies = self._autoscaling.describe_policies(AutoScalingGroupName=self._group_name)
        names = [each["PolicyName"] for each in policies.get("ScalingPolicies", []) if each.get("Enabled", True)]
        found = list(_faults(group))
        if names:
            found.append(f"its scaling policies change the target too: delete or disable {', '.join(sorted(names))}")
        return found

    def _group(self) -> AutoScalingGroupTypeDef | None:
        answer = self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self._group_name])
        return next(iter(answer["AutoScalingGroups"]), None)

    def _terminate(self, instance_id: str, *, lowers: bool) -> None:
        """End one instance; done, too, when the group has let go of it since we looked."""
        try:
            self._autoscaling.terminate_instance_in_auto_scaling_group(
                InstanceId=instance_id, ShouldDecrementDesiredCapacity=lowers
            )
        except ClientError as error:
            said = str(error).lower()
            if code_of(error) != "ValidationError":
                raise
            if "not found" in said:
                return
            if not lowers or "min size" not in said:
                raise
            # Others went meanwhile. It consented and works no more, so it goes all the same, and another comes.
            self._terminate(instance_id, lowers=False)

    def _trouble(self) -> str:
        """Return why the last launch failed, empty when the last one did not; who may not ask does without."""
        try:
            with translated("reading its activities"):
                answer = self._autoscaling.describe_scaling_activities(
                    AutoScalingGroupName=self._group_name, MaxRecords=10
                )
        except Unavailable:
            return ""
        launches = (each for each in answer.get("Activities", []) if each.get("Description", "").startswith("Launch"))
        newest = next(launches, None)
        if newest is None or newest["StatusCode"] not in {"Failed", "Cancelled"}:
            return ""
        return newest.get("StatusMessage", newest["StatusCode"])


def _states(group: AutoScalingGroupTypeDef) -> dict[str, str]:
    """Return how the group stands to each of its instances, but for those that it does not count."""
    return {
        each["InstanceId"]: each["LifecycleState"]
        for each in group.get("Instances", [])
        if not each["LifecycleState"].startswith(NOT_COUNTED)
    }


def _seen_by_group(member: Member, state: str) -> Member:
    return altered(member, life=Life.ENDING) if state.startswith(LEAVING) else member


def _faults(group: AutoScalingGroupTypeDef) -> Iterator[str]:
    name = group["AutoScalingGroupName"]
    if "Status" in group:
        yield f"the group is being deleted ({group['Status']}): make a new one and correct fleet_id"
    if not group.get("NewInstancesProtectedFromScaleIn", False):
        yield (
            "new instances are not protected from scale-in: aws autoscaling update-auto-scaling-group "
            f"--auto-scaling-group-name {name} --new-instances-protected-from-scale-in"
        )
    states = _states(group)
    bare = [
        each["InstanceId"]
        for each in group.get("Instances", [])
        if not each.get("ProtectedFromScaleIn", False)
        and not states.get(each["InstanceId"], LEAVING[0]).startswith(LEAVING)
    ]
    if bare:
        yield (
            f"instances that are not protected from scale-in: aws autoscaling set-instance-protection "
            f"--auto-scaling-group-name {name} --protected-from-scale-in --instance-ids {' '.join(bare)}"
        )
    suspended = {each.get("ProcessName", "") for each in group.get("SuspendedProcesses", [])}
    if "AZRebalance" not in suspended:
        yield (
            "it may end instances to balance zones: aws autoscaling suspend-processes "
            f"--auto-scaling-group-name {name} --scaling-processes AZRebalance"
        )
    if missing := sorted(NEEDED_PROCESSES & suspended):
        yield f"its processes {' and '.join(missing)} are suspended, so its size does not change: resume them"
    yield from _shape_faults(group)


def _shape_faults(group: AutoScalingGroupTypeDef) -> Iterator[str]:
    overrides = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("Overrides", [])
    if weights := sorted({each.get("WeightedCapacity", "1") for each in overrides} - {"1"}):
        yield f"instances count {', '.join(weights)} of the target: leave WeightedCapacity out, so that each counts 1"
    if (unit := group.get("DesiredCapacityType", "units")) != "units":
        yield f"its target is counted in {unit}: count it in units, which are instances"
    if group.get("MaxInstanceLifetime"):
        yield "it ends instances at an age, busy or not: set MaxInstanceLifetime to 0"
    if group.get("CapacityRebalance", False):
        yield "it ends instances that are at risk of being reclaimed, busy or not: switch CapacityRebalance off"
    if "WarmPoolConfiguration" in group:
        yield "its warm pool starts workers and stops them while they work: delete the warm pool"
