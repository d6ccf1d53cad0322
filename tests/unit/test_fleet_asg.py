"""The Auto Scaling adapter on a group that chooses its own victims where it may."""

from __future__ import annotations

import random
from typing import Any

import pytest
from fakes import FakeClock
from fakes.fleet_asg import GROUP, NOTICED_AFTER_S, FakeAsg, Place
from fakes.fleet_ec2 import FakeEc2, refusal

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.port import Condition, FleetView, Life
from scheduler.domain.errors import Unavailable


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.ec2 = FakeEc2(self.clock, random.Random(5))
        self.asg = FakeAsg(self.ec2, **options)
        self.fleet = AutoScalingGroup(self.asg, self.ec2, GROUP, clock=self.clock)
        self.clock.advance(60)

    def after(self, seconds: float) -> FleetView:
        self.clock.advance(seconds)
        return self.fleet.describe()

    def up(self) -> list[str]:
        return [each.instance_id for each in self.ec2.up()]


def test_shows_the_groups_own_bounds() -> None:
    view = World(desired=2, min_size=1, max_size=7).fleet.describe()
    assert (view.target, view.min_size, view.max_size) == (2, 1, 7)


def test_raises_again_before_the_cooldown_is_over() -> None:
    world = World()
    world.fleet.set_target(1)
    world.after(10)
    world.fleet.set_target(3)
    assert world.after(300).target == 3
    assert len(world.up()) == 3


@pytest.mark.parametrize(("asked", "becomes"), [(0, 2), (9, 4)])
def test_target_stays_within_the_groups_bounds(asked: int, becomes: int) -> None:
    world = World(desired=2, min_size=2, max_size=4)
    world.fleet.set_target(asked)
    assert world.after(300).target == becomes


def test_lowering_cancels_what_was_not_launched_and_kills_nobody() -> None:
    world = World(desired=2)
    world.asg.protects_new = False
    for place in world.asg.places.values():
        place.is_protected = False
    world.ec2.stock = 2
    world.fleet.set_target(5)
    world.after(120)
    world.fleet.set_target(1)
    world.ec2.stock = None
    view = world.after(1800)
    assert (view.target, len(view.members), world.ec2.ends) == (2, 2, [])


def test_lowering_never_raises_the_target_of_a_group_that_has_too_many() -> None:
    world = World(desired=4)
    world.asg.desired = 2  # lowered by hand; all are protected
    world.fleet.set_target(1)
    assert world.fleet.describe().target == 2


def test_the_fake_kills_who_is_not_protected() -> None:
    world = World(desired=4)
    bare, *_ = world.up()
    world.asg.places[bare].is_protected = False
    world.asg.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
    world.after(600)
    assert [(one, by) for _, one, by in world.ec2.ends] == [(bare, "policy")]


def test_ended_worker_lowers_the_target_once_however_often_it_is_ended() -> None:
    world = World(desired=3)
    going, *staying = world.up()
    for _ in range(3):
        world.fleet.end_self(going, replace=False)
        world.clock.advance(1)
    assert world.after(600).target == 2
    world.fleet.end([going], replace=False)
    assert world.after(600).target == 2
    assert world.up() == staying


def test_several_are_ended_as_far_as_min_size_lets_the_target_fall() -> None:
    world = World(desired=3, min_size=2)
    before = world.up()
    world.fleet.end(before, replace=False)
    assert world.ec2.faults.calls["terminate_instance_in_auto_scaling_group"] == 3, "none was tried in vain"
    view = world.after(600)
    assert view.target == 2
    assert len(world.up()) == 2
    assert not set(world.up()) & set(before), "all three had consented, and go"


class Stale(FakeAsg):
    """Shows a MinSize that was raised since."""

    def describe_auto_scaling_groups(self, **asked: Any) -> dict[str, Any]:
        answer = super().describe_auto_scaling_groups(**asked)
        answer["AutoScalingGroups"][0]["MinSize"] = 0
        return answer


def test_min_size_that_turns_out_to_be_reached_replaces_who_consented() -> None:
    world = World(desired=2)
    world.asg.__class__ = Stale
    world.asg.min_size = 2
    going, _ = world.up()
    world.fleet.end([going], replace=False)
    assert world.after(600).target == 2
    assert going not in world.up()
    assert len(world.up()) == 2


def test_one_that_fails_does_not_keep_the_others() -> None:
    world = World(desired=3)
    first, second, third = world.up()
    world.asg.ec2.faults.fail_next(
        1, refusal("ScalingActivityInProgress", "busy"), on="terminate_instance_in_auto_scaling_group"
    )
    with pytest.raises(Unavailable, match=f"terminating {first}"):
        world.fleet.end([first, second, third], replace=False)
    assert world.after(600).target == 1
    assert world.up() == [first]


def test_instance_that_left_the_group_meanwhile_is_no_failure() -> None:
    world = World(desired=2)
    going, _ = world.up()
    answer = world.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    world.asg.describe_auto_scaling_groups = lambda **_: answer
    del world.asg.places[going]
    world.fleet.end([going], replace=False)
    assert world.asg.desired == 2


def test_instance_whose_hook_holds_it_is_on_its_way_out() -> None:
    world = World(desired=1)
    world.asg.hook_s = 300
    (going,) = world.up()
    world.fleet.end_self(going, replace=True)
    found = {member.instance_id: member.life for member in world.after(100).members}
    assert world.up()[0] == going, "EC2 shows it running"
    assert found[going] is Life.ENDING
    world.asg.complete_lifecycle_action(InstanceId=going)
    world.after(100)
    assert going not in world.up()


@pytest.mark.parametrize("state", ["Standby", "EnteringStandby", "Detaching", "Warmed:Stopped"])
def test_instance_that_was_set_aside_is_no_member(state: str) -> None:
    world = World(desired=2)
    aside, kept = world.up()
    world.asg.places[aside] = Place(state, is_protected=False)
    assert [member.instance_id for member in world.fleet.describe().members] == [kept]
    world.fleet.end([aside], replace=False)
    assert aside in world.up()
    assert world.fleet.faults() == []


def test_reclaimed_instance_is_replaced_once_the_group_notices() -> None:
    world = World(desired=1)
    (gone,) = world.up()
    world.ec2.reclaim(gone)
    (member,) = world.after(120).members
    assert member.life is Life.ENDING, "though the group still calls it InService"
    world.after(NOTICED_AFTER_S)
    world.after(60)
    assert len(world.up()) == 1
    assert gone not in world.up()


def test_capacity_that_does_not_come_is_explained_in_the_groups_words() -> None:
    world = World()
    world.ec2.stock = 0
    world.fleet.set_target(1)
    assert world.after(60).trouble == "We currently do not have sufficient capacity"
    world.ec2.stock = None
    assert world.after(120).trouble == ""


def test_reason_that_may_not_be_read_is_done_without() -> None:
    world = World()
    world.ec2.stock = 0
    world.fleet.set_target(1)
    world.clock.advance(60)
    world.ec2.faults.fail_next(1, refusal("AccessDenied", "no"), on="describe_scaling_activities")
    assert world.fleet.describe().trouble == ""


def test_group_that_is_not_there_has_ended() -> None:
    world = World(desired=1)
    world.asg.exists = False
    view = world.fleet.describe()
    assert (view.condition, view.members) == (Condition.ENDED, ())
    with pytest.raises(Unavailable, match="no group"):
        world.fleet.set_target(2)
    world.fleet.end(world.up(), replace=False)
    (fault,) = world.fleet.faults()
    assert "not there" in fault


def test_group_that_is_being_deleted_has_ended() -> None:
    world = World(desired=1)
    world.asg.extra = {"Status": "Delete in progress"}
    assert world.fleet.describe().condition is Condition.ENDED
    (fault,) = world.fleet.faults()
    assert "being deleted" in fault


EXTRAS = {
    "leave WeightedCapacity out": {
        "MixedInstancesPolicy": {"LaunchTemplate": {"Overrides": [{"WeightedCapacity": "2"}, {}]}}
    },
    "counted in vcpu": {"DesiredCapacityType": "vcpu"},
    "at an age": {"MaxInstanceLifetime": 604800},
    "at risk": {"CapacityRebalance": True},
    "warm pool": {"WarmPoolConfiguration": {"MinSize": 1}},
}


@pytest.mark.parametrize("words", EXTRAS)
def test_setting_that_ends_or_miscounts_workers_is_a_fault(words: str) -> None:
    world = World(desired=1)
    world.asg.extra = EXTRAS[words]
    (fault,) = world.fleet.faults()
    assert words in fault
    assert ": " in fault, "what is wrong, and after the colon what to do"


def test_missing_protection_is_a_fault_with_the_commands_that_mend_it() -> None:
    world = World(desired=2)
    bare, _ = world.up()
    world.asg.protects_new = False
    world.asg.places[bare].is_protected = False
    world.asg.suspended = set()
    new, old, zones = world.fleet.faults()
    assert "--new-instances-protected-from-scale-in" in new
    assert old.endswith(f"--protected-from-scale-in --instance-ids {bare}")
    assert "--scaling-processes AZRebalance" in zones


def test_processes_that_are_needed_and_policies_that_interfere_are_faults() -> None:
    world = World()
    world.asg.suspended |= {"Launch", "Terminate", "AlarmNotification"}
    world.asg.policies = ["cpu-target"]
    suspended, policies = world.fleet.faults()
    assert "Launch and Terminate" in suspended
    assert "cpu-target" in policies
