"""A fleet as the leader and the workers use it: one suite over every adapter, on our fakes, on moto, on real processes.

On moto only what it models: it replaces nobody in a Spot Fleet.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_servers import NOWHERE, REGION, Cloud, aws_environ, one_attempt_client, unique
from fakes import FakeClock
from fakes.endpoint import endpoint
from fakes.fleet import REQUEST_ID, FakeFleet
from fakes.fleet_asg import GROUP, FakeAsg
from fakes.fleet_ec2 import FakeEc2, Pace

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.instance import SingleInstance
from scheduler.autoscale.fleets.local import LocalFleet
from scheduler.autoscale.fleets.port import Condition, Fleet, FleetView, Life, Member
from scheduler.autoscale.fleets.spot_fleet import SpotFleet
from scheduler.aws import fleet_clients
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import AccessDenied, Unavailable
from scheduler.domain.ports import Clock

AMI = "ami-12c6146b"
LAGS = Pace(show_lag_s=2.0, list_lag_s=4.0)
UNKNOWN = "i-0badbadbadbadbad0"


class Ground:
    """A fleet under test, at first without any worker, and how time passes there."""

    fleet: Fleet
    clock: Clock
    most = 3
    """So many workers it can have."""

    def pass_time(self) -> None:
        """Let as much time pass as anything takes to begin."""
        raise NotImplementedError

    def until(self, fits: Callable[[FleetView], bool]) -> FleetView:
        """Return the fleet as soon as it fits."""
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            view = self.fleet.describe()
            if fits(view):
                return view
            time.sleep(0.02)
        raise AssertionError(f"it never came to that: {self.fleet.describe()}")

    def settled(self, *, target: int, up: int) -> list[str]:
        """Return the ids of those who are up, once there are so many, running, and the target is that."""

        def fits(view: FleetView) -> bool:
            lives = [member.life for member in alive(view)]
            return view.condition is Condition.ACTIVE and view.target == target and lives == [Life.RUNNING] * up

        return sorted(member.instance_id for member in alive(self.until(fits)))

    def grown(self, many: int) -> list[str]:
        """Raise the target from nothing; return who came."""
        self.fleet.set_target(many)
        return self.settled(target=many, up=many)


def alive(view: FleetView) -> list[Member]:
    return [member for member in view.members if member.life is not Life.ENDING]


class OnFakes(Ground):
    def __init__(self) -> None:
        self.clock = self.fake_clock = FakeClock()
        self.rng = random.Random(7)

    def pass_time(self) -> None:
        for _ in range(60):
            self.fake_clock.advance(10)
            self.fleet.describe()

    def until(self, fits: Callable[[FleetView], bool]) -> FleetView:
        for _ in range(200):
            view = self.fleet.describe()
            if fits(view):
                return view
            self.fake_clock.advance(3)
        raise AssertionError(f"it never came to that: {self.fleet.describe()}")


class FakeSpotGround(OnFakes):
    def __init__(self) -> None:
        super().__init__()
        self.fleet = SpotFleet(FakeFleet(self.fake_clock, self.rng, pace=LAGS), REQUEST_ID, clock=self.clock)


class FakeAsgGround(OnFakes):
    def __init__(self) -> None:
        super().__init__()
        ec2 = FakeEc2(self.fake_clock, self.rng, pace=LAGS)
        self.fleet = AutoScalingGroup(FakeAsg(ec2), ec2, GROUP, clock=self.clock)


class FakeInstanceGround(OnFakes):
    most = 1

    def __init__(self) -> None:
        super().__init__()
        ec2 = FakeEc2(self.fake_clock, self.rng, pace=LAGS)
        self.fleet = SingleInstance(ec2, ec2.launch(state="stopped").instance_id)
        self.fake_clock.advance(LAGS.show_lag_s)


class OnMoto(Ground):
    def __init__(self, ec2: Any, autoscaling: Any) -> None:
        self.clock = SystemClock()
        self.ec2, self.autoscaling = ec2, autoscaling

    def pass_time(self) -> None:
        """Everything that moto does it does within the call."""


class MotoSpotGround(OnMoto):
    def __init__(self, ec2: Any, autoscaling: Any) -> None:
        super().__init__(ec2, autoscaling)
        made = ec2.request_spot_fleet(
            SpotFleetRequestConfig={
                "TargetCapacity": 0,
                "IamFleetRole": "arn:aws:iam::123456789012:role/fleet",
                "SpotPrice": "1",
                "AllocationStrategy": "lowestPrice",
                "LaunchSpecifications": [{"ImageId": AMI, "InstanceType": "g4dn.xlarge"}],
            }
        )
        self.fleet = SpotFleet(ec2, made["SpotFleetRequestId"], clock=self.clock)


class MotoAsgGround(OnMoto):
    def __init__(self, ec2: Any, autoscaling: Any) -> None:
        super().__init__(ec2, autoscaling)
        self.group = unique("group")
        made = ec2.create_launch_template(
            LaunchTemplateName=self.group, LaunchTemplateData={"ImageId": AMI, "InstanceType": "g4dn.xlarge"}
        )
        autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=self.group,
            MinSize=0,
            MaxSize=5,
            DesiredCapacity=0,
            AvailabilityZones=["us-east-1a"],
            LaunchTemplate={"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"], "Version": "1"},
            NewInstancesProtectedFromScaleIn=True,
        )
        autoscaling.suspend_processes(AutoScalingGroupName=self.group, ScalingProcesses=["AZRebalance"])
        self.fleet = AutoScalingGroup(autoscaling, ec2, self.group, clock=self.clock)


class MotoInstanceGround(OnMoto):
    most = 1

    def __init__(self, ec2: Any, autoscaling: Any) -> None:
        super().__init__(ec2, autoscaling)
        made = ec2.run_instances(ImageId=AMI, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1)
        instance_id = made["Instances"][0]["InstanceId"]
        ec2.stop_instances(InstanceIds=[instance_id])
        self.fleet = SingleInstance(ec2, instance_id)


class LocalGround(Ground):
    """The service as local mode starts it; its workers only sleep."""

    def __init__(self, address: str) -> None:
        self.clock = SystemClock()
        self.fleet = LocalFleet(address)

    def pass_time(self) -> None:
        """Wait for something that the service does after whatever came before: it looks after all in one go."""
        before = len(alive(self.fleet.describe()))
        target = self.fleet.describe().target
        self.fleet.set_target(before + 1)
        view = self.until(lambda view: len(alive(view)) == before + 1)
        self.fleet.set_target(target)
        newest = max(alive(view), key=lambda member: member.launched_s)
        self.fleet.end([newest.instance_id], replace=False)


FAKES: dict[str, Callable[[], Ground]] = {
    "fake-spot-fleet": FakeSpotGround,
    "fake-asg": FakeAsgGround,
    "fake-instance": FakeInstanceGround,
}
MOTO: dict[str, Callable[[Any, Any], Ground]] = {
    "moto-spot-fleet": MotoSpotGround,
    "moto-asg": MotoAsgGround,
    "moto-instance": MotoInstanceGround,
}
EVERY = [*FAKES, *MOTO, "local"]
ROOMY = [name for name in EVERY if "instance" not in name]
UPKEPT = [name for name in EVERY if name != "moto-spot-fleet"]
"""Those that notice whom they lose."""


@pytest.fixture(scope="module")
def moto_clients(moto: Cloud) -> Iterator[tuple[Any, Any]]:
    """The product's own clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environ(moto.url).items():
            patch.setenv(name, value)
        ec2, autoscaling = fleet_clients.build_ec2(REGION), fleet_clients.build_autoscaling(REGION)
    try:
        yield ec2, autoscaling
    finally:
        ec2.close()
        autoscaling.close()


@contextlib.contextmanager
def hasty_clients(url: str) -> Iterator[tuple[Any, Any]]:
    """Build clients that give up at once."""
    with one_attempt_client("ec2", url) as ec2, one_attempt_client("autoscaling", url) as autoscaling:
        yield ec2, autoscaling


@contextlib.contextmanager
def local_service(folder: Path) -> Iterator[str]:
    program = [sys.executable, "-m", "scheduler.local.fleet_service", "--folder", str(folder), "--", "sleep", "600"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().removeprefix("listening on ").strip()
        finally:
            process.terminate()
            process.wait(30)


def ground_named(name: str, request: pytest.FixtureRequest, stack: contextlib.ExitStack) -> Ground:
    if name in FAKES:
        return FAKES[name]()
    if name == "local":
        return LocalGround(stack.enter_context(local_service(request.getfixturevalue("tmp_path"))))
    return MOTO[name](*request.getfixturevalue("moto_clients"))


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with contextlib.ExitStack() as stack:
        yield ground_named(request.param, request, stack)


def over(names: list[str]) -> pytest.MarkDecorator:
    """Run a test on each of these grounds."""
    return pytest.mark.parametrize("ground", names, indirect=True)


@over(EVERY)
def test_begins_empty_and_ready(ground: Ground) -> None:
    view = ground.fleet.describe()
    assert (view.condition, view.target, alive(view)) == (Condition.ACTIVE, 0, [])
    assert view.min_size == 0


@over(EVERY)
def test_comes_to_have_as_many_as_asked_for(ground: Ground) -> None:
    began_s = ground.clock.now()
    ids = ground.grown(ground.most)
    members = alive(ground.fleet.describe())
    assert sorted(member.instance_id for member in members) == ids
    assert len(set(ids)) == ground.most
    assert all(began_s - 1.5 <= member.launched_s <= ground.clock.now() + 1.5 for member in members)


@over(EVERY)
def test_same_target_again_changes_nothing(ground: Ground) -> None:
    ids = ground.grown(ground.most)
    ground.fleet.set_target(ground.most)
    ground.pass_time()
    assert ground.settled(target=ground.most, up=ground.most) == ids


@over(EVERY)
def test_lower_target_ends_nobody(ground: Ground) -> None:
    ids = ground.grown(ground.most)
    ground.fleet.set_target(0)
    ground.pass_time()
    kept = 0 if ground.fleet.lowers_target else ground.most
    assert ground.settled(target=kept, up=ground.most) == ids


@pytest.mark.parametrize(
    ("ground", "by"),
    [*((name, "worker") for name in EVERY), *((name, "leader") for name in ROOMY)],
    indirect=["ground"],
)
def test_who_consented_ends_and_nobody_comes_instead(ground: Ground, by: str) -> None:
    going, *staying = ground.grown(ground.most)
    if ground.fleet.lowers_target:
        ground.fleet.set_target(ground.most - 1)
        ground.settled(target=ground.most - 1, up=ground.most)
    if by == "leader":
        ground.fleet.end([going], replace=False)
    else:
        ground.fleet.end_self(going, replace=False)
    ground.settled(target=ground.most - 1, up=ground.most - 1)
    ground.pass_time()
    assert ground.settled(target=ground.most - 1, up=ground.most - 1) == staying


@over([name for name in ROOMY if name in UPKEPT])
@pytest.mark.parametrize("by", ["leader", "worker"])
def test_who_is_replaced_goes_and_another_comes(ground: Ground, by: str) -> None:
    going, *staying = ground.grown(3)
    if by == "leader":
        ground.fleet.end([going], replace=True)
    else:
        ground.fleet.end_self(going, replace=True)
    ground.until(lambda view: going not in {member.instance_id for member in alive(view)})
    ids = ground.settled(target=3, up=3)
    assert set(staying) < set(ids)
    assert going not in ids


@over(ROOMY)
def test_one_that_is_unknown_or_has_ended_does_not_spoil_the_others(ground: Ground) -> None:
    first, second, third = ground.grown(3)
    if ground.fleet.lowers_target:
        ground.fleet.set_target(1)
        ground.settled(target=1, up=3)
    ground.fleet.end([first], replace=False)
    ground.fleet.end([UNKNOWN, first, second], replace=False)
    ground.fleet.end([second, first], replace=False)
    ground.fleet.end([], replace=False)
    assert ground.settled(target=1, up=1) == [third]


@over(UPKEPT)
def test_goes_to_nothing_and_comes_back(ground: Ground) -> None:
    ids = ground.grown(ground.most)
    if ground.fleet.lowers_target:
        ground.fleet.set_target(0)
        ground.settled(target=0, up=ground.most)
    for one in ids:
        ground.fleet.end_self(one, replace=False)
    ground.settled(target=0, up=0)
    assert len(ground.grown(1)) == 1


@over(EVERY)
def test_sane_fleet_has_no_faults(ground: Ground) -> None:
    ground.grown(1)
    assert ground.fleet.faults() == []


# failures


def each_call(fleet: Fleet) -> list[Callable[[], object]]:
    return [
        fleet.describe,
        fleet.faults,
        lambda: fleet.set_target(1),
        lambda: fleet.end([UNKNOWN], replace=False),
        lambda: fleet.end_self(UNKNOWN, replace=True),
    ]


def aws_fleets(ec2: Any, autoscaling: Any) -> list[Fleet]:
    return [
        SpotFleet(ec2, REQUEST_ID, clock=SystemClock()),
        AutoScalingGroup(autoscaling, ec2, GROUP, clock=SystemClock()),
        SingleInstance(ec2, UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("ec2_code", "autoscaling_code", "error"),
    [
        ("RequestLimitExceeded", "Throttling", Unavailable),
        ("UnauthorizedOperation", "AccessDenied", AccessDenied),
    ],
)
def test_every_refusal_is_told_as_what_it_is(ec2_code: str, autoscaling_code: str, error: type[Unavailable]) -> None:
    def refuse(_method: str, _path: str, body: bytes) -> tuple[int, bytes]:
        if b"Version=2011-01-01" in body:  # Auto Scaling's
            told = f"<Error><Type>Sender</Type><Code>{autoscaling_code}</Code><Message>no</Message></Error>"
            return 400, f"<ErrorResponse>{told}</ErrorResponse>".encode()
        told = f"<Errors><Error><Code>{ec2_code}</Code><Message>no</Message></Error></Errors>"
        return 400, f"<Response>{told}<RequestID>1</RequestID></Response>".encode()

    with endpoint(refuse) as url, hasty_clients(url) as clients:
        for fleet in aws_fleets(*clients):
            for call in each_call(fleet):
                with pytest.raises(Unavailable) as caught:
                    call()
                assert type(caught.value) is error or "should have stopped itself" in caught.value.message


def test_nobody_there_is_unavailable() -> None:
    with hasty_clients(NOWHERE) as clients:
        for fleet in [*aws_fleets(*clients), LocalFleet(NOWHERE)]:
            for call in each_call(fleet):
                if call == fleet.faults and isinstance(fleet, LocalFleet):
                    continue
                with pytest.raises(Unavailable):
                    call()


@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"{}", b"[]", b'{"condition": "odd", "members": []}'])
def test_something_else_in_the_local_services_place_is_unavailable(body: bytes) -> None:
    with endpoint(lambda *_: (200, body)) as url, pytest.raises(Unavailable):
        LocalFleet(url).describe()


@pytest.mark.parametrize(("order", "path"), [(-1, "/target"), (True, "/target"), ("3", "/target")])
def test_local_service_refuses_what_is_no_target(tmp_path: Path, order: Any, path: str) -> None:
    with local_service(tmp_path) as address:
        fleet = LocalFleet(address)
        with pytest.raises(Unavailable, match=f"PUT {path} was answered with 400"):
            fleet.set_target(order)
        assert fleet.describe().target == 0
