"""An Auto Scaling group as its client shows it: it chooses whom it ends unless they are
protected, and holds its bounds.
"""

# ruff: noqa: N803 - the arguments are named as boto3 names them

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from fakes.fleet_ec2 import FakeEc2, refusal

GROUP = "sd-workers"
NOTICED_AFTER_S = 30.0
"""How long the group takes to notice that an instance is gone."""
COOLDOWN_S = 300.0


@dataclass(slots=True)
class Place:
    """How the group stands to one instance."""

    state: str
    is_protected: bool


class FakeAsg:
    """An Auto Scaling client with one group whose instances live in `ec2`; `extra` is merged into its description.

    Where nobody knows what AWS does, the worst: ending an instance that ends already lowers the target again. With
    `hook_s` an instance waits in Terminating:Wait until its hook is completed or so long has passed.
    """

    def __init__(self, ec2: FakeEc2, *, desired: int = 0, min_size: int = 0, max_size: int = 20) -> None:
        self.ec2 = ec2
        self.desired = desired
        self.min_size = min_size
        self.max_size = max_size
        self.protects_new = True
        self.suspended = {"AZRebalance"}
        self.policies: list[str] = []
        self.hook_s = 0.0
        self.extra: dict[str, Any] = {}
        self.exists = True
        self.places: dict[str, Place] = {}
        self._launching = 0
        self._cooled_s = float("-inf")
        self._activities: list[dict[str, Any]] = []
        ec2.on_end.append(self._lost)
        for _ in range(desired):
            self._take_in()

    # upkeep

    def _counted(self) -> list[str]:
        return [one for one, place in self.places.items() if place.state in {"Pending", "InService"}]

    def _take_in(self) -> bool:
        instance = self.ec2.launch()
        if instance is None:
            return False
        place = self.places[instance.instance_id] = Place("Pending", self.protects_new)

        def enter() -> None:
            if place.state == "Pending":
                place.state = "InService"

        self.ec2.time.after(self.ec2.pace.pending_s, enter)
        return True

    def _keep_up(self) -> None:
        bare = [one for one in self._counted() if not self.places[one].is_protected]
        excess = min(len(bare), len(self._counted()) - self.desired)
        for one in self.ec2.rng.sample(bare, excess) if excess > 0 else []:
            self._let_go(one, by="policy")
        missing = self.desired - len(self._counted()) - self._launching
        if missing > 0:
            self._launching += missing
            self.ec2.time.after(self.ec2.pace.launch_s, lambda: self._launch(missing))

    def _launch(self, many: int) -> None:
        self._launching -= many
        wanted = min(many, self.desired - len(self._counted()))
        short = sum(not self._take_in() for _ in range(max(0, wanted)))
        if wanted > 0:
            self._activities.insert(0, _activity("Failed" if short else "Successful"))
        if short:
            self._launching += short
            self.ec2.time.after(self.ec2.pace.retry_s, lambda: self._launch(short))

    def _let_go(self, instance_id: str, *, by: str) -> None:
        place = self.places[instance_id]
        if place.state.startswith("Terminating"):
            return
        place.state = "Terminating:Wait" if self.hook_s else "Terminating"
        self.ec2.time.after(self.hook_s, lambda: self._proceed(instance_id, by))

    def _proceed(self, instance_id: str, by: str) -> None:
        place = self.places.get(instance_id)
        if place is None or place.state == "Terminating:Proceed":
            return
        place.state = "Terminating:Proceed"
        self.ec2.end(instance_id, by=by)

    def _lost(self, instance_id: str) -> None:
        """An instance ends: by us, and then it leaves the group; or otherwise, and then that is noticed later."""
        place = self.places.get(instance_id)
        if place is None:
            return

        def notice() -> None:
            self.places.pop(instance_id, None)
            self._keep_up()

        self.ec2.time.after(
            self.ec2.pace.ending_s if place.state.startswith("Terminating") else NOTICED_AFTER_S, notice
        )

    # the client's methods

    def describe_auto_scaling_groups(self, *, AutoScalingGroupNames: Sequence[str]) -> dict[str, Any]:
        with self.ec2.called("describe_auto_scaling_groups"):
            if list(AutoScalingGroupNames) != [GROUP] or not self.exists:
                return {"AutoScalingGroups": []}
            group = {
                "AutoScalingGroupName": GROUP,
                "MinSize": self.min_size,
                "MaxSize": self.max_size,
                "DesiredCapacity": self.desired,
                "NewInstancesProtectedFromScaleIn": self.protects_new,
                "SuspendedProcesses": [{"ProcessName": name} for name in sorted(self.suspended)],
                "Instances": [
                    {
                        "InstanceId": one,
                        "LifecycleState": place.state,
                        "ProtectedFromScaleIn": place.is_protected,
                        "HealthStatus": "Healthy",
                    }
                    for one, place in self.places.items()
                ],
            }
            return {"AutoScalingGroups": [group | self.extra]}

    def set_desired_capacity(
        self, *, AutoScalingGroupName: str, DesiredCapacity: int, HonorCooldown: bool = False
    ) -> dict[str, Any]:
        with self.ec2.called("set_desired_capacity"):
            self._check(AutoScalingGroupName)
            now_s = self.ec2.time.now_s
            if HonorCooldown and now_s - self._cooled_s < COOLDOWN_S:
                raise refusal("ScalingActivityInProgress", "the cooldown is not over")
            if not self.min_size <= DesiredCapacity <= self.max_size:
                raise invalid(f"New SetDesiredCapacity value {DesiredCapacity} is out of bounds for the group")
            self.desired, self._cooled_s = DesiredCapacity, now_s
            self._keep_up()
            return {}

    def terminate_instance_in_auto_scaling_group(
        self, *, InstanceId: str, ShouldDecrementDesiredCapacity: bool
    ) -> dict[str, Any]:
        with self.ec2.called("terminate_instance_in_auto_scaling_group"):
            if InstanceId not in self.places:
                raise invalid(f"Instance Id not found - No managed instance found for instance ID: {InstanceId}")
            if ShouldDecrementDesiredCapacity:
                if self.desired <= self.min_size:
                    raise invalid(
                        f"Currently, desiredSize equals minSize ({self.min_size}). Terminating instance without "
                        "replacement will violate group's min size constraint."
                    )
                self.desired -= 1
            self._let_go(InstanceId, by="api")
            self._keep_up()
            return {}

    def describe_scaling_activities(self, *, AutoScalingGroupName: str, MaxRecords: int) -> dict[str, Any]:
        with self.ec2.called("describe_scaling_activities"):
            self._check(AutoScalingGroupName)
            return {"Activities": self._activities[:MaxRecords]}

    def describe_policies(self, *, AutoScalingGroupName: str) -> dict[str, Any]:
        with self.ec2.called("describe_policies"):
            self._check(AutoScalingGroupName)
            return {"ScalingPolicies": [{"PolicyName": name, "Enabled": True} for name in self.policies]}

    def complete_lifecycle_action(self, *, InstanceId: str, **_: str) -> dict[str, Any]:
        with self.ec2.called("complete_lifecycle_action"):
            if self.places[InstanceId].state != "Terminating:Wait":
                raise invalid(f"No active Lifecycle Action found with instance ID {InstanceId}")
            self._proceed(InstanceId, "api")
            return {}

    def _check(self, name: str) -> None:
        if name != GROUP or not self.exists:
            raise invalid("AutoScalingGroup name not found")


def invalid(said: str) -> ClientError:
    """Return how Auto Scaling refuses what cannot be done."""
    return refusal("ValidationError", said)


def _activity(status: str) -> dict[str, Any]:
    failed = {"StatusMessage": "We currently do not have sufficient capacity"} if status == "Failed" else {}
    return {"Description": "Launching a new EC2 instance", "StatusCode": status, **failed}
