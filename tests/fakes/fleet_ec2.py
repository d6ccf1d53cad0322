"""EC2's instances as its client shows them, on a clock that only tests move. What real ones do late, these do on time.

Nothing happens by itself: each call first brings the world up to the clock's now, in the order of time. All chance
comes from the `random.Random` that is passed in, so that a run can be repeated.
"""

# ruff: noqa: N803 - the arguments are named as boto3 names them

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

from botocore.exceptions import ClientError

from fakes.clock import FakeClock
from fakes.faults import Faults

NOTICE_S = 120.0
NEVER = float("inf")
UP = frozenset({"pending", "running"})


def refusal(code: str, said: str, operation: str = "Fake") -> ClientError:
    """Return the error that boto3 raises for a refused call."""
    return ClientError({"Error": {"Code": code, "Message": said}}, operation)


THROTTLED = refusal("RequestLimitExceeded", "Request limit exceeded.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds. As in the world that policies are compared in, without lags."""

    launch_s: float = 25.0
    """From the fleet's wish to the new instance."""
    pending_s: float = 5.0
    boot_s: float = 150.0
    """From running to a worker that polls; the median of a lognormal distribution."""
    boot_sigma: float = 0.2
    ending_s: float = 30.0
    stopping_s: float = 30.0
    show_lag_s: float = 0.0
    """Until DescribeInstances shows a new instance."""
    list_lag_s: float = 0.0
    """Until a fleet lists a new instance, and, once it has ended, lists it no more."""
    forget_s: float = 3600.0
    """Until EC2 knows an instance that was told to end no more; longer than `ending_s`."""
    modify_s: float = 3.0
    retry_s: float = 60.0
    """After a launch for which there was no capacity."""


@dataclass(slots=True, kw_only=True)
class Instance:
    """One instance. `ready_s` is when its worker polls, NEVER for a boot that does not come."""

    instance_id: str
    zone: str
    launched_s: float
    state: str = "pending"
    boot: int = 1
    running_s: float = NEVER
    ready_s: float = NEVER
    notice_s: float | None = None
    """When EC2 gave notice that it takes the instance away."""
    ended_s: float | None = None
    """When it stopped working: it was told to end, or was taken away."""
    ended_by: str = ""
    reason: str = ""
    """Why it is not up, as AWS's StateReason has it."""
    is_spot: bool = False
    is_persistent: bool = False
    is_protected: bool = False
    """From termination through the API."""

    @property
    def is_up(self) -> bool:
        return self.state in UP


class Timeline:
    """What is due, in the order of time. `now_s` is the moment of what happens, so that what follows is exact."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.now_s = clock.now()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_s + seconds, next(self._order), do))

    def catch_up(self) -> float:
        now_s = self._clock.now()
        while self._due and self._due[0][0] <= now_s:
            self.now_s, _, do = heapq.heappop(self._due)
            do()
        self.now_s = now_s
        return now_s


class FakeEc2:
    """An EC2 client whose only resources are `instances`.

    Tests set `stock` (how many may be up at once), `stillborn` (how many of the next boots never come), `page_size` and
    `throttled_share`, call `reclaim`, and order failures from `faults`.
    """

    def __init__(self, clock: FakeClock, rng: Random, *, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.time = Timeline(clock)
        self.rng = rng
        self.faults = Faults()
        self.instances: dict[str, Instance] = {}
        self.forgotten: dict[str, Instance] = {}
        self.stock: int | None = None
        self.stillborn = 0
        self.page_size = 1000
        self.throttled_share = 0.0
        self.ends: list[tuple[float, str, str]] = []
        """When which instance was ended, and by whom: api, reclaim, policy (the fleet's own choice)."""
        self.on_launch: list[Callable[[str], None]] = []
        self.on_end: list[Callable[[str], None]] = []
        self._numbers = count(1)

    # what tests do and see

    def up(self) -> list[Instance]:
        """Return the instances that are up now."""
        self.time.catch_up()
        return [each for each in self.instances.values() if each.is_up]

    def reclaim(self, instance_id: str) -> None:
        """Give notice that a Spot Instance is taken away, and take it away when the notice is over."""
        self.time.catch_up()
        instance = self.instances[instance_id]
        if instance.is_up and instance.notice_s is None:
            instance.notice_s = self.time.now_s
            boot = instance.boot
            self.time.after(NOTICE_S, lambda: self._take_away(instance_id, boot))

    def throttle(self, times: int, *, on: str | None = None) -> None:
        """Refuse the next calls."""
        self.faults.fail_next(times, THROTTLED, on=on)

    def launch(self, *, is_spot: bool = False, state: str = "pending") -> Instance | None:
        """Launch an instance; None when there is no capacity."""
        if self.stock is not None and sum(each.is_up for each in self.instances.values()) >= self.stock:
            return None
        instance_id = f"i-{next(self._numbers):017x}"
        zone = self.rng.choice(("us-east-1a", "us-east-1b"))
        instance = Instance(
            instance_id=instance_id, zone=zone, launched_s=self.time.now_s, state=state, is_spot=is_spot
        )
        self.instances[instance_id] = instance
        if state == "pending":
            self._boot(instance)
        for heard in self.on_launch:
            heard(instance_id)
        return instance

    def end(self, instance_id: str, *, by: str) -> None:
        """Begin to shut an instance down."""
        instance = self.instances[instance_id]
        if instance.state in {"shutting-down", "terminated"}:
            return
        instance.state = "shutting-down"
        instance.ended_s, instance.ended_by = self.time.now_s, by
        instance.reason = "Server.SpotInstanceTermination" if by == "reclaim" else "Client.UserInitiatedShutdown"
        self.ends.append((self.time.now_s, instance_id, by))
        self.time.after(self.pace.ending_s, lambda: setattr(instance, "state", "terminated"))
        self.time.after(
            self.pace.forget_s, lambda: self.forgotten.update({instance_id: self.instances.pop(instance_id)})
        )
        for heard in self.on_end:
            heard(instance_id)

    def _boot(self, instance: Instance) -> None:
        boot_s = NEVER if self.stillborn > 0 else self.rng.lognormvariate(0, self.pace.boot_sigma) * self.pace.boot_s
        self.stillborn = max(0, self.stillborn - 1)
        instance.state, instance.reason, instance.notice_s = "pending", "", None
        instance.launched_s = self.time.now_s
        instance.running_s = self.time.now_s + self.pace.pending_s
        instance.ready_s = instance.running_s + boot_s
        boot = instance.boot

        def run() -> None:
            if instance.state == "pending" and instance.boot == boot:
                instance.state = "running"

        self.time.after(self.pace.pending_s, run)

    def _take_away(self, instance_id: str, boot: int) -> None:
        instance = self.instances[instance_id]
        if instance.is_up and instance.boot == boot:
            self.end(instance_id, by="reclaim")

    # the client's methods

    @contextmanager
    def called(self, operation: str) -> Iterator[None]:
        """Stand around every call: the world is brought up to now, and the failures that are due are raised."""
        self.time.catch_up()
        if self.throttled_share and self.rng.random() < self.throttled_share:
            raise THROTTLED
        with self.faults.around(operation):
            yield

    def page(self, key: str, found: Sequence[Any], most: int, token: str | None) -> dict[str, Any]:
        """Return one page of an answer."""
        if not 1 <= most <= 1000:
            raise refusal("InvalidParameterValue", f"MaxResults {most}")
        start = int(token or 0)
        end = start + min(most, self.page_size)
        answer: dict[str, Any] = {key: list(found[start:end])}
        if end < len(found):
            answer["NextToken"] = str(end)
        return answer

    def describe_instances(
        self, *, Filters: Sequence[Mapping[str, Any]], MaxResults: int = 1000, NextToken: str | None = None
    ) -> dict[str, Any]:
        with self.called("describe_instances"):
            ((name, values),) = [(each["Name"], each["Values"]) for each in Filters]
            if name != "instance-id" or len(values) > 200:
                raise refusal("FilterLimitExceeded", f"{name}: {len(values)} values")
            known = [each for one in values if (each := self.instances.get(one)) and self._is_shown(each)]
            answer = self.page("Instances", [_shown(each) for each in known], MaxResults, NextToken)
            return {"Reservations": [{"Instances": [each]} for each in answer.pop("Instances")], **answer}

    def _is_shown(self, instance: Instance) -> bool:
        return instance.boot > 1 or self.time.now_s - instance.launched_s >= self.pace.show_lag_s

    def terminate_instances(self, *, InstanceIds: Sequence[str]) -> dict[str, Any]:
        with self.called("terminate_instances"):
            for one in self._all(InstanceIds):
                if one.is_protected:
                    raise refusal("OperationNotPermitted", f"{one.instance_id} may not be terminated")
            for one in self._all(InstanceIds):
                self.end(one.instance_id, by="api")
            return {}

    def start_instances(self, *, InstanceIds: Sequence[str]) -> dict[str, Any]:
        with self.called("start_instances"):
            for one in self._all(InstanceIds):
                if one.is_up:
                    continue
                if one.state != "stopped":
                    raise refusal("IncorrectInstanceState", f"{one.instance_id} is {one.state}")
                if self.stock is not None and len(self.up()) >= self.stock:
                    one.reason = "Server.InsufficientInstanceCapacity"
                    raise refusal("InsufficientInstanceCapacity", "no capacity")
                one.boot += 1
                one.ended_s, one.ended_by = None, ""
                self._boot(one)
            return {}

    def stop_instances(self, *, InstanceIds: Sequence[str]) -> dict[str, Any]:
        with self.called("stop_instances"):
            for one in self._all(InstanceIds):
                if one.is_spot and not one.is_persistent:
                    raise refusal("UnsupportedOperation", "a one-time Spot Instance cannot be stopped")
                if one.state in {"shutting-down", "terminated"}:
                    raise refusal("IncorrectInstanceState", f"{one.instance_id} is {one.state}")
                if one.is_up:
                    one.state, one.reason = "stopping", "Client.UserInitiatedShutdown"
                    one.ended_s, one.ended_by = self.time.now_s, "api"
                    self.ends.append((self.time.now_s, one.instance_id, "api"))
                    self.time.after(self.pace.stopping_s, lambda one=one: setattr(one, "state", "stopped"))
            return {}

    def describe_spot_instance_requests(self, *, SpotInstanceRequestIds: Sequence[str]) -> dict[str, Any]:
        with self.called("describe_spot_instance_requests"):
            (request_id,) = SpotInstanceRequestIds
            instance = self.instances[request_id.replace("sir-", "i-")]
            return {"SpotInstanceRequests": [{"Type": "persistent" if instance.is_persistent else "one-time"}]}

    def _all(self, instance_ids: Sequence[str]) -> list[Instance]:
        """Return the instances; one bad id fails all."""
        for one in instance_ids:
            if not one.startswith("i-"):
                raise refusal("InvalidInstanceID.Malformed", f"Invalid id: {one!r}")
            if one not in self.instances or not self._is_shown(self.instances[one]):
                raise refusal("InvalidInstanceID.NotFound", f"The instance ID {one!r} does not exist")
        return [self.instances[one] for one in instance_ids]


def _shown(instance: Instance) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "InstanceId": instance.instance_id,
        "LaunchTime": datetime.fromtimestamp(instance.launched_s, UTC),
        "Placement": {"AvailabilityZone": instance.zone},
        "RootDeviceType": "ebs",
        "State": {"Name": instance.state},
    }
    if instance.reason:
        shown["StateReason"] = {"Code": instance.reason, "Message": f"{instance.reason}: as AWS words it"}
    if instance.is_spot:
        shown["InstanceLifecycle"] = "spot"
        shown["SpotInstanceRequestId"] = instance.instance_id.replace("i-", "sir-")
    return shown
