"""A Spot Fleet as EC2's client shows it: slow to change, quick to replace,
and blind in what it kills under `default`.
"""

# ruff: noqa: N803 - the arguments are named as boto3 names them

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

from fakes.clock import FakeClock
from fakes.fleet_ec2 import FakeEc2, Instance, Pace, refusal

REQUEST_ID = "sfr-01234567-89ab-cdef-0123-456789abcdef"
GONE = "InvalidSpotFleetRequestId.NotFound"


class FakeFleet(FakeEc2):
    """An EC2 client with one Spot Fleet request; `config` is merged into what its description shows.

    As it is with AWS, or, where nobody knows, as bad as it may be: while `modifying` the old target is shown, and a
    second change is taken and lost; a change that names no policy sets `default`; with that an excess is ended by lot,
    while with `noTermination` it stays, and what is lost from it is not replaced.
    """

    def __init__(
        self, clock: FakeClock, rng: Random, *, target: int = 0, pace: Pace | None = None, kind: str = "maintain"
    ) -> None:
        super().__init__(clock, rng, pace=pace)
        self.target = target
        self.shown_target = target
        self.state = "active"
        self.policy = "default"
        self.kind = kind
        self.config: dict[str, Any] = {}
        self.shortage = "there is no Spot capacity that matches your request"
        self.lost_modifies = 0
        self._launching = 0
        self._is_short = False
        self._errors: list[dict[str, Any]] = []
        self.on_end.append(lambda _: self._keep_up())
        for _ in range(target):
            self.launch(is_spot=True)

    def fulfilled(self) -> list[Instance]:
        """Return the members that count towards the target."""
        return [each for each in self.instances.values() if each.is_up]

    def cancel(self, state: str = "cancelled_running") -> None:
        """Cancel the request as a person does; its instances run on."""
        self.time.catch_up()
        self.state = state

    # upkeep

    def _keep_up(self) -> None:
        if self.state not in {"active", "modifying"}:
            return
        up = self.fulfilled()
        if len(up) > self.target and self.policy == "default":
            self.end(self.rng.choice(up).instance_id, by="policy")  # which comes back here for the next
            return
        missing = self.target - len(self.fulfilled()) - self._launching
        if missing > 0:
            self._launching += missing
            self.time.after(self.pace.launch_s, lambda: self._launch(missing))

    def _launch(self, many: int) -> None:
        self._launching -= many
        wanted = min(many, self.target - len(self.fulfilled()))
        if self.state not in {"active", "modifying"} or wanted <= 0:
            return
        launched = [self.launch(is_spot=True) for _ in range(wanted)]
        short = launched.count(None)
        self._is_short = short > 0
        if short:
            self._errors.append(
                {
                    "Timestamp": datetime.fromtimestamp(self.time.now_s, UTC),
                    "EventType": "error",
                    "EventInformation": {
                        "EventSubType": "launchSpecTemporarilyBlacklisted",
                        "EventDescription": self.shortage,
                    },
                }
            )
            self._launching += short
            self.time.after(self.pace.retry_s, lambda: self._launch(short))

    # the client's methods

    def describe_spot_fleet_requests(self, *, SpotFleetRequestIds: list[str]) -> dict[str, Any]:
        with self.called("describe_spot_fleet_requests"):
            self._check(*SpotFleetRequestIds)
            config = {
                "TargetCapacity": self.shown_target,
                "FulfilledCapacity": float(len(self.fulfilled())),
                "Type": self.kind,
                "ExcessCapacityTerminationPolicy": self.policy,
                **self.config,
            }
            return {
                "SpotFleetRequestConfigs": [
                    {
                        "SpotFleetRequestId": REQUEST_ID,
                        "SpotFleetRequestState": self.state,
                        "ActivityStatus": self._activity(),
                        "SpotFleetRequestConfig": config,
                    }
                ]
            }

    def modify_spot_fleet_request(
        self, *, SpotFleetRequestId: str, TargetCapacity: int, ExcessCapacityTerminationPolicy: str = "default"
    ) -> dict[str, Any]:
        with self.called("modify_spot_fleet_request"):
            self._check(SpotFleetRequestId)
            if self.kind != "maintain" or self.state not in {"active", "modifying"}:
                raise refusal("FleetNotInModifiableState", f"{self.kind}, {self.state}")
            if ExcessCapacityTerminationPolicy not in {"noTermination", "default"} or TargetCapacity < 0:
                raise refusal("InvalidParameterValue", ExcessCapacityTerminationPolicy)
            if self.state == "modifying":
                self.lost_modifies += 1
                return {"Return": True}
            self.state = "modifying"
            self.time.after(self.pace.modify_s, lambda: self._modified(TargetCapacity, ExcessCapacityTerminationPolicy))
            return {"Return": True}

    def _modified(self, target: int, policy: str) -> None:
        if self.state != "modifying":
            return
        self.target = self.shown_target = target
        self.policy = policy
        self.state = "active"
        self._keep_up()

    def describe_spot_fleet_instances(
        self, *, SpotFleetRequestId: str, MaxResults: int = 1000, NextToken: str | None = None
    ) -> dict[str, Any]:
        with self.called("describe_spot_fleet_instances"):
            self._check(SpotFleetRequestId)
            listed = [
                {"InstanceId": each.instance_id, "InstanceHealth": "healthy"}
                for each in self.instances.values()
                if self._is_listed(each)
            ]
            return self.page("ActiveInstances", listed, MaxResults, NextToken)

    def describe_spot_fleet_request_history(
        self, *, SpotFleetRequestId: str, EventType: str, StartTime: datetime
    ) -> dict[str, Any]:
        with self.called("describe_spot_fleet_request_history"):
            self._check(SpotFleetRequestId)
            assert EventType == "error"
            return {"HistoryRecords": [each for each in self._errors if each["Timestamp"] >= StartTime]}

    def _activity(self) -> str:
        missing = self.target - len(self.fulfilled())
        if missing > 0:
            return "error" if self._is_short else "pending_fulfillment"
        return "pending_termination" if missing < 0 and self.policy == "default" else "fulfilled"

    def _is_listed(self, instance: Instance) -> bool:
        now_s = self.time.now_s
        if instance.ended_s is not None:
            return now_s - instance.ended_s <= self.pace.ending_s + self.pace.list_lag_s
        return now_s - instance.launched_s >= self.pace.list_lag_s

    def _check(self, request_id: str) -> None:
        if request_id != REQUEST_ID or self.state == "forgotten":
            raise refusal(GONE, f"The spot fleet request ID {request_id!r} does not exist")
