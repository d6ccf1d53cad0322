"""The adapter of a single instance: anybody may start it, and only its own worker stops it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from fakes import FakeClock
from fakes.fleet_ec2 import FakeEc2

from scheduler.autoscale.fleets.instance import SingleInstance
from scheduler.autoscale.fleets.port import Condition, FleetView, Life
from scheduler.domain.errors import Unavailable


class World:
    def __init__(self, *, state: str = "stopped", is_spot: bool = False) -> None:
        self.clock = FakeClock()
        self.ec2 = FakeEc2(self.clock, random.Random(5))
        self.instance = self.ec2.launch(state=state, is_spot=is_spot)
        self.id = self.instance.instance_id
        self.fleet = SingleInstance(self.ec2, self.id)

    def after(self, seconds: float) -> FleetView:
        self.clock.advance(seconds)
        return self.fleet.describe()


def seen(view: FleetView) -> tuple[Any, ...]:
    (member,) = view.members
    return view.condition, view.target, member.life


def test_goes_from_stopped_to_running_and_back() -> None:
    world = World()
    assert seen(world.fleet.describe()) == (Condition.ACTIVE, 0, Life.ENDING)
    world.fleet.set_target(1)
    started_s = world.clock.now()
    assert seen(world.fleet.describe()) == (Condition.ACTIVE, 1, Life.PENDING)
    assert seen(world.after(60)) == (Condition.ACTIVE, 1, Life.RUNNING)
    assert world.fleet.describe().members[0].launched_s == started_s
    world.fleet.end_self(world.id, replace=False)
    assert seen(world.fleet.describe()) == (Condition.MODIFYING, 0, Life.ENDING)
    assert seen(world.after(60)) == (Condition.ACTIVE, 0, Life.ENDING)


def test_work_that_comes_while_it_is_stopping_starts_it_once_it_has_stopped() -> None:
    world = World(state="running")
    world.fleet.end_self(world.id, replace=False)
    with pytest.raises(Unavailable, match="IncorrectInstanceState"):
        world.fleet.set_target(1)
    world.clock.advance(60)
    world.fleet.set_target(1)
    assert seen(world.after(60)) == (Condition.ACTIVE, 1, Life.RUNNING)
    assert world.instance.boot == 2


def test_no_capacity_starts_nobody() -> None:
    world = World()
    world.fleet.set_target(0)
    assert seen(world.after(60)) == (Condition.ACTIVE, 0, Life.ENDING)


def test_more_than_one_is_one_and_none_stops_nobody() -> None:
    world = World(state="running")
    world.fleet.set_target(3)
    world.fleet.set_target(0)
    view = world.after(600)
    assert seen(view) == (Condition.ACTIVE, 1, Life.RUNNING)
    assert view.max_size == 1
    assert world.ec2.ends == []


@pytest.mark.parametrize("replace", [True, False])
def test_leader_does_not_stop_it_and_says_who_must(replace: bool) -> None:
    """What it believes dead may have started anew since."""
    world = World(state="running")
    with pytest.raises(Unavailable, match=f"by hand .aws ec2 stop-instances --instance-ids {world.id}"):
        world.fleet.end([world.id], replace=replace)
    assert seen(world.after(600)) == (Condition.ACTIVE, 1, Life.RUNNING)


def test_other_instances_are_nothing_to_it() -> None:
    world = World(state="running")
    other = world.ec2.launch()
    world.fleet.end([other.instance_id], replace=False)
    world.fleet.end([], replace=False)
    assert world.ec2.ends == []


def test_start_without_capacity_is_unavailable_and_shown_as_the_trouble() -> None:
    world = World()
    world.ec2.stock = 0
    with pytest.raises(Unavailable, match="InsufficientInstanceCapacity"):
        world.fleet.set_target(1)
    assert "Server.InsufficientInstanceCapacity" in world.fleet.describe().trouble
    world.ec2.stock = 1
    world.fleet.set_target(1)
    assert world.after(60).trouble == ""


def test_stop_of_its_own_is_no_trouble() -> None:
    world = World(state="running")
    world.fleet.end_self(world.id, replace=False)
    assert world.after(60).trouble == ""


def test_terminated_or_unknown_instance_has_ended() -> None:
    world = World(state="running")
    world.ec2.end(world.id, by="hand")
    assert seen(world.after(60)) == (Condition.ENDED, 0, Life.ENDING)
    with pytest.raises(Unavailable, match="is gone"):
        world.fleet.set_target(1)
    view = world.after(2 * world.ec2.pace.forget_s)
    assert (view.condition, view.members) == (Condition.ENDED, ())
    with pytest.raises(Unavailable, match="is gone"):
        world.fleet.set_target(1)
    (fault,) = world.fleet.faults()
    assert "not there" in fault


def test_one_time_spot_instance_cannot_be_stopped_and_is_a_fault() -> None:
    world = World(state="running", is_spot=True)
    (fault,) = world.fleet.faults()
    assert "one-time Spot Instance, which cannot be stopped: use" in fault
    with pytest.raises(Unavailable, match="cannot be stopped"):
        world.fleet.end_self(world.id, replace=False)
    world.instance.is_persistent = True
    assert world.fleet.faults() == []


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"RootDeviceType": "instance-store"}, "instance store"),
        ({"Tags": [{"Key": "aws:autoscaling:groupName", "Value": "g"}]}, "belongs to an Auto Scaling group"),
        ({"Tags": [{"Key": "aws:ec2spot:fleet-request-id", "Value": "s"}]}, "belongs to a Spot Fleet"),
    ],
)
def test_instance_that_cannot_be_stopped_in_peace_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, shown: dict[str, Any], words: str
) -> None:
    world = World(state="running")
    answer = world.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": [world.id]}])
    answer["Reservations"][0]["Instances"][0] |= shown
    monkeypatch.setattr(world.ec2, "describe_instances", lambda **_: answer)
    (fault,) = world.fleet.faults()
    assert words in fault


def test_tags_of_ones_own_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(state="running")
    answer = world.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": [world.id]}])
    answer["Reservations"][0]["Instances"][0] |= {"Tags": [{"Key": "Name", "Value": "gpu"}]}
    monkeypatch.setattr(world.ec2, "describe_instances", lambda **_: answer)
    assert world.fleet.faults() == []
