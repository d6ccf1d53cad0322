"""The rivals do what their authors publish: tables of what is seen and what is wanted."""

import json

import pytest

from scheduler.autoscale.snapshot import Snapshot
from scheduler.simulate.rivals import Buildkite, Keda, Static, TargetTracking, rivals


def seen(at_s=0.0, target=2, **other):
    values = {"visible": 0, "serving": target, "service_s": 20.0, "boot_s": 180.0, "max_capacity": 20, **other}
    return Snapshot(at_s=at_s, target=target, **values)


def follow(policy, snapshots):
    wanted, state = [], {}
    for snapshot in snapshots:
        decision = policy.decide(snapshot, state)
        wanted.append(decision.capacity)
        state = json.loads(json.dumps(decision.state))
    return wanted


def test_a_static_fleet_stays():
    assert follow(Static(capacity=4), [seen(), seen(15.0, visible=100)]) == [4, 4]


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({"visible": 11, "target": 2}, 3),
        ({"visible": 6, "in_flight": 5, "target": 2}, 3),
        ({"visible": 1, "target": 0}, 1),
        ({"target": 0}, 0),
        ({"visible": 52, "target": 10}, 10),
        ({"visible": 56, "target": 10}, 12),
        ({"visible": 1000}, 20),
    ],
)
def test_keda_wants_one_for_each_queue_length_within_its_tolerance(facts, wanted):
    assert follow(Keda(queue_length=5), [seen(**facts)]) == [wanted]


def test_keda_holds_the_largest_wish_of_the_window_and_goes_to_none_after_the_cooldown():
    ticks = [seen(0.0, 0, visible=40), *(seen(30.0 * n, 8, visible=5) for n in range(1, 12))]
    assert follow(Keda(queue_length=5), ticks) == [8] * 10 + [1, 1]
    ticks = [seen(0.0, 0, visible=40), *(seen(30.0 * n, 8) for n in range(1, 12))]
    assert follow(Keda(queue_length=5), ticks) == [8] * 10 + [0, 0]


def test_keda_does_nothing_between_two_polls():
    assert follow(Keda(queue_length=1), [seen(visible=2), seen(15.0, visible=9), seen(30.0, visible=9)]) == [2, 2, 9]


def test_a_wish_for_fewer_stands_while_the_fleet_has_not_followed():
    ticks = [seen(0.0, 0, visible=3), *(seen(30.0 * n, 3, visible=1) for n in range(1, 12)), seen(345.0, 3, visible=1)]
    assert follow(Keda(queue_length=1), ticks)[-3:] == [1, 1, 1]


def test_target_tracking_grows_in_proportion_after_three_minutes_above():
    ticks = [seen(60.0 * n, visible=30) for n in range(3)]
    assert follow(TargetTracking(), ticks) == [2, 2, 10], "3 waiting per instance are 60 s of work"


def test_target_tracking_shrinks_after_fifteen_minutes_below_and_keeps_one():
    ticks = [seen(60.0 * n, visible=0) for n in range(16)]
    assert follow(TargetTracking(), ticks) == [2] * 14 + [1, 1]
    assert follow(TargetTracking(), [seen(60.0 * n, target=0) for n in range(16)]) == [1] * 16


def test_buildkite_never_gives_back_by_itself():
    assert follow(Buildkite(), [seen(visible=5, in_flight=2), seen(15.0, 7), seen(30.0, 7)]) == [7, 7, 7]


def test_who_ends_busy_workers_is_said():
    ends = {name for name, rival in rivals().items() if rival.habits.ends_busy}
    assert ends == {"target-tracking", "keda-5", "keda-1"}
