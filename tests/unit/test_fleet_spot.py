"""The Spot Fleet adapter on a fleet that is slow, lags, is throttled, and kills blindly where it may."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes import FakeClock
from fakes.fleet import GONE, REQUEST_ID, FakeFleet
from fakes.fleet_ec2 import NOTICE_S, Pace, refusal

from scheduler.autoscale.fleets.port import Condition, FleetView, Life
from scheduler.autoscale.fleets.spot_fleet import SpotFleet
from scheduler.domain.errors import AccessDenied, Unavailable

UNKNOWN = "i-0badbadbadbadbad0"


class World:
    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.ec2 = FakeFleet(self.clock, random.Random(3), **options)
        self.fleet = SpotFleet(self.ec2, REQUEST_ID, clock=self.clock)

    def after(self, seconds: float) -> FleetView:
        self.clock.advance(seconds)
        return self.fleet.describe()

    def up(self) -> list[str]:
        return [each.instance_id for each in self.ec2.up()]


def lives(view: FleetView) -> list[str]:
    return sorted(member.life.value for member in view.members)


def test_while_it_is_modifying_the_old_target_shows_and_no_other_change_is_sent() -> None:
    world = World()
    world.fleet.set_target(2)
    view = world.fleet.describe()
    assert (view.condition, view.target) == (Condition.MODIFYING, 0)
    with pytest.raises(Unavailable, match="is modifying"):
        world.fleet.set_target(5)
    assert world.ec2.lost_modifies == 0
    view = world.after(world.ec2.pace.modify_s)
    assert (view.condition, view.target) == (Condition.ACTIVE, 2)
    world.fleet.set_target(5)
    assert len(world.after(600).members) == 5


def test_submitted_fleet_is_not_ready_for_a_change() -> None:
    world = World()
    world.ec2.state = "submitted"
    assert world.fleet.describe().condition is Condition.MODIFYING
    with pytest.raises(Unavailable, match="is submitted"):
        world.fleet.set_target(1)


def test_target_below_the_members_kills_none_even_if_the_fleet_was_made_to() -> None:
    world = World(target=6)
    assert world.ec2.policy == "default"
    world.fleet.set_target(2)
    view = world.after(1800)
    assert (view.target, lives(view)) == (2, ["running"] * 6)
    assert world.ec2.ends == []


def test_the_fake_kills_an_excess_where_nobody_forbids_it() -> None:
    world = World(target=6)
    world.ec2.modify_spot_fleet_request(SpotFleetRequestId=REQUEST_ID, TargetCapacity=2)
    world.after(60)
    assert [by for _, _, by in world.ec2.ends] == ["policy"] * 4


def test_an_excess_that_is_lost_is_not_replaced() -> None:
    world = World(target=3)
    world.fleet.set_target(2)
    world.after(60)
    gone, *left = world.up()
    world.ec2.reclaim(gone)
    world.after(1800)
    assert world.up() == left


def test_worker_that_ends_before_the_target_is_lowered_is_replaced() -> None:
    """Why the order of steps is what it is."""
    world = World(target=2)
    gone, left = world.up()
    world.fleet.end_self(gone, replace=False)
    world.after(600)
    assert left in world.up()
    assert len(world.up()) == 2
    assert gone not in world.up()


def test_reclaimed_member_ends_two_minutes_after_its_notice_and_another_comes() -> None:
    world = World(target=1)
    (gone,) = world.up()
    world.after(60)
    world.ec2.reclaim(gone)
    assert lives(world.after(NOTICE_S - 1)) == ["running"]
    assert lives(world.after(1)) == ["ending"]
    assert lives(world.after(600)) == ["running"]


def test_members_come_on_as_many_pages_as_there_are() -> None:
    world = World(target=7)
    world.ec2.page_size = 3
    view = world.after(60)
    assert lives(view) == ["running"] * 7
    assert len({member.instance_id for member in view.members}) == 7


def test_many_members_are_asked_for_within_what_a_filter_takes() -> None:
    world = World(target=450)
    world.clock.advance(60)
    assert lives(world.fleet.describe()) == ["running"] * 450


def test_instance_that_ec2_does_not_show_yet_was_launched_just_now() -> None:
    world = World(target=1, pace=Pace(show_lag_s=10))
    (member,) = world.after(4).members
    assert (member.life, member.launched_s) == (Life.PENDING, world.clock.now())
    (member,) = world.after(10).members
    assert (member.life, member.launched_s) == (Life.RUNNING, world.clock.now() - 14)


def test_ended_instance_that_is_still_listed_is_ending() -> None:
    world = World(target=2, pace=Pace(list_lag_s=300))
    world.clock.advance(400)
    world.fleet.set_target(0)
    world.after(10)
    world.fleet.end(world.up(), replace=False)
    assert lives(world.after(200)) == ["ending", "ending"]
    assert world.after(200).members == ()


@pytest.mark.parametrize("bad", [UNKNOWN, "nonsense"])
def test_one_bad_id_does_not_keep_the_others_alive(bad: str) -> None:
    world = World(target=3)
    first, second, third = world.up()
    world.fleet.end([first, bad, second], replace=False)
    assert world.up() == [third]


def test_instance_that_may_not_be_ended_is_told_after_the_others_have_been() -> None:
    world = World(target=3)
    first, second, third = world.up()
    world.ec2.instances[first].is_protected = True
    with pytest.raises(Unavailable, match=f"terminating {first}: .*may not be terminated"):
        world.fleet.end([first, second, third], replace=False)
    assert world.up() == [first]


def test_many_are_ended_in_batches_one_of_them_spoilt() -> None:
    world = World(target=250)
    world.fleet.end([*world.up(), UNKNOWN], replace=False)
    assert world.up() == []
    assert world.ec2.faults.calls["terminate_instances"] == 3 + 51


def test_throttled_while_ending_one_by_one_leaves_the_rest_for_the_next_time() -> None:
    world = World(target=3)
    world.ec2.faults.fail_next(1, refusal("InvalidInstanceID.NotFound", "spoilt"), on="terminate_instances")
    world.ec2.throttle(1, on="terminate_instances")
    ids = world.up()
    with pytest.raises(Unavailable, match="RequestLimitExceeded"):
        world.fleet.end(ids, replace=False)
    world.fleet.end(ids, replace=False)
    assert world.up() == []


def test_refused_rights_are_told_as_such() -> None:
    world = World(target=2)
    world.ec2.faults.fail_next(9, refusal("UnauthorizedOperation", "no policy allows it"))
    with pytest.raises(AccessDenied):
        world.fleet.describe()
    with pytest.raises(AccessDenied):
        world.fleet.end(world.up(), replace=False)


@pytest.mark.parametrize(
    "call", ["describe_spot_fleet_requests", "describe_spot_fleet_instances", "describe_instances"]
)
def test_half_an_answer_is_no_answer(call: str) -> None:
    world = World(target=2)
    world.ec2.throttle(1, on=call)
    with pytest.raises(Unavailable, match="RequestLimitExceeded"):
        world.fleet.describe()


def test_no_change_is_sent_for_the_target_that_is_set_already() -> None:
    world = World(target=2)
    world.fleet.set_target(2)
    assert world.fleet.describe().condition is Condition.ACTIVE
    assert world.ec2.faults.calls["modify_spot_fleet_request"] == 0


def test_fleet_of_another_type_is_never_changed() -> None:
    world = World(target=2, kind="request")
    with pytest.raises(Unavailable, match="of the type request"):
        world.fleet.set_target(3)
    assert world.ec2.faults.calls["modify_spot_fleet_request"] == 0


def test_change_that_aws_does_not_make_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.ec2, "modify_spot_fleet_request", lambda **_: {"Return": False})
    with pytest.raises(Unavailable, match="did not change"):
        world.fleet.set_target(3)


@pytest.mark.parametrize("state", ["cancelled_running", "cancelled_terminating", "cancelled", "failed"])
def test_cancelled_fleet_has_ended_with_its_members_still_there(state: str) -> None:
    world = World(target=2)
    world.ec2.cancel(state)
    view = world.after(60)
    assert (view.condition, len(view.members)) == (Condition.ENDED, 2)
    with pytest.raises(Unavailable, match=f"is {state}"):
        world.fleet.set_target(3)
    (fault,) = world.fleet.faults()
    assert state in fault
    world.fleet.end(world.up(), replace=False)
    assert world.up() == [], "who consented still ends"


def test_forgotten_fleet_has_ended() -> None:
    world = World(target=2)
    world.ec2.cancel("forgotten")
    view = world.fleet.describe()
    assert (view.condition, view.target, view.members) == (Condition.ENDED, 0, ())
    assert view.trouble
    with pytest.raises(Unavailable, match="is gone"):
        world.fleet.set_target(3)
    (fault,) = world.fleet.faults()
    assert "not there" in fault


def test_capacity_that_does_not_come_is_explained_in_the_fleets_words() -> None:
    world = World()
    world.ec2.stock = 1
    world.fleet.set_target(3)
    assert world.after(5).trouble == ""
    view = world.after(60)
    assert (view.target, len(view.members)) == (3, 1)
    assert view.trouble == "launchSpecTemporarilyBlacklisted: there is no Spot capacity that matches your request"
    world.ec2.shortage = "something newer"
    assert world.after(60).trouble == "launchSpecTemporarilyBlacklisted: something newer"
    world.ec2.stock = None
    view = world.after(120)
    assert (len(view.members), view.trouble) == (3, "")


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "UnauthorizedOperation"])
def test_reason_that_may_not_be_read_is_done_without(code: str) -> None:
    world = World()
    world.ec2.stock = 0
    world.fleet.set_target(1)
    world.clock.advance(60)
    world.ec2.faults.fail_next(1, refusal(code, "no"), on="describe_spot_fleet_request_history")
    view = world.fleet.describe()
    assert (view.target, view.trouble) == (1, "")


def test_target_lowered_while_capacity_is_short_brings_no_more_than_that() -> None:
    world = World()
    world.ec2.stock = 1
    world.fleet.set_target(5)
    world.after(120)
    world.fleet.set_target(2)
    world.after(10)
    world.ec2.stock = None
    world.after(600)
    assert len(world.up()) == 2


FAULTS = {
    "WeightedCapacity": {"LaunchSpecifications": [{"WeightedCapacity": 2.0}, {}]},
    "2 of the target": {"LaunchTemplateConfigs": [{"Overrides": [{"WeightedCapacity": 2.0}]}]},
    "counted in vcpu": {"TargetCapacityUnitType": "vcpu"},
    "kills its instances then": {
        "ValidUntil": datetime(2031, 1, 2, tzinfo=UTC),
        "TerminateInstancesWithExpiration": True,
    },
    "from 2031-01-02 on it launches nothing": {"ValidUntil": datetime(2031, 1, 2, tzinfo=UTC)},
    "launch, or none": {
        "SpotMaintenanceStrategies": {"CapacityRebalance": {"ReplacementStrategy": "launch-before-terminate"}}
    },
    "is to hibernate": {"InstanceInterruptionBehavior": "hibernate"},
}


@pytest.mark.parametrize("words", FAULTS)
def test_fault_is_told_with_what_to_do(words: str) -> None:
    world = World()
    world.ec2.config = FAULTS[words]
    (fault,) = world.fleet.faults()
    assert words in fault
    assert ": " in fault, "what is wrong, and after the colon what to do"


def test_type_that_cannot_be_resized_is_a_fault() -> None:
    (fault,) = World(kind="request").fleet.faults()
    assert "of the type request" in fault


def test_settings_that_are_right_are_no_fault() -> None:
    world = World()
    world.ec2.config = {
        "LaunchTemplateConfigs": [{"Overrides": [{"WeightedCapacity": 1.0}, {}]}],
        "SpotMaintenanceStrategies": {"CapacityRebalance": {"ReplacementStrategy": "launch"}},
        "InstanceInterruptionBehavior": "terminate",
    }
    assert world.fleet.faults() == []


def test_runs_of_the_fake_with_one_seed_are_alike() -> None:
    def run() -> list[tuple[float, str, str]]:
        world = World(target=20)
        world.ec2.throttled_share = 0.1
        for step in range(50):
            world.clock.advance(60)
            if up := world.up():
                world.ec2.reclaim(world.ec2.rng.choice(up))
            try:
                world.fleet.set_target(step % 30)
            except Unavailable:
                continue
        return world.ec2.ends

    assert run() == run() != []


def test_boots_that_never_come_are_up_but_never_ready() -> None:
    world = World()
    world.ec2.stillborn = 1
    world.fleet.set_target(2)
    world.after(3600)
    assert sorted(each.ready_s <= world.clock.now() for each in world.ec2.up()) == [False, True]


def test_unknown_request_is_refused_by_the_fake_as_by_aws() -> None:
    world = World()
    with pytest.raises(Exception, match=GONE):
        world.ec2.describe_spot_fleet_instances(SpotFleetRequestId="sfr-other")
