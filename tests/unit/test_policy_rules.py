"""The rules by queue length, and the single worker: tables of what is seen and what is wanted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.autoscale.policies.backlog import LATE_WORTH_S, Backlog
from scheduler.autoscale.policies.choice import policy
from scheduler.autoscale.policies.idle_stop import IdleStop
from scheduler.autoscale.policies.step import Step
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.snapshot import Snapshot
from scheduler.config_sections import POLICIES, PRESETS, Autoscaling


def seen(at_s=1000.0, target=2, **other):
    values = {"visible": 0, "serving": target, "service_s": 20.0, "boot_s": 180.0, "max_capacity": 8, **other}
    return Snapshot(at_s=at_s, target=target, **values)


@pytest.mark.parametrize(
    ("facts", "capacity"),
    [
        ({"visible": 5}, 2),
        ({"visible": 6}, 3),
        ({"visible": 1000}, 3),
        ({"visible": 4, "held_waiting": 2, "in_flight": 2}, 3),
        ({"visible": 4, "delayed": 2}, 3),
        ({"visible": 1}, 2),
        ({}, 1),
        ({"running": 1, "in_flight": 1}, 2),
        ({"in_flight": 1}, 2),
        ({"running": 1}, 2),
        ({"delayed": 1}, 2),
        ({"target": 0}, 0),
        ({"target": 0, "visible": 1}, 1),
        ({"target": 8, "visible": 100}, 8),
        ({"target": 2, "min_capacity": 2}, 2),
    ],
)
def test_threshold_adds_above_it_and_takes_away_when_nothing_is_left(facts, capacity):
    assert Threshold().decide(seen(**facts), {}).capacity == capacity


@pytest.mark.parametrize(
    ("waiting", "added"), [(0, -1), (1, 0), (9, 0), (10, 1), (49, 1), (50, 2), (99, 2), (100, 3), (5000, 3)]
)
def test_steps_add_by_the_number_that_is_reached(waiting, added):
    assert Step().decide(seen(visible=waiting), {}).capacity == 2 + added


def test_steps_may_be_given_in_any_order():
    assert Step(steps=((50, 2), (10, 1))).decide(seen(visible=60), {}).capacity == 4


def test_a_queue_short_of_the_first_step_gets_the_first_worker():
    assert Step().decide(seen(target=0, visible=1), {}).capacity == 1


@pytest.mark.parametrize("rule", [Threshold(), Step()])
def test_after_a_change_comes_a_pause(rule):
    first = rule.decide(seen(visible=20), {})
    assert first.capacity == 3
    paused = rule.decide(seen(at_s=1299.0, visible=20), first.state)
    assert paused.capacity == 3, "what was decided stands, also while the fleet is still on its way"
    later = rule.decide(seen(at_s=1300.0, visible=20, target=3), paused.state)
    assert later.capacity == 4


@pytest.mark.parametrize("rule", [Threshold(scale_out_threshold=3), Step(steps=((3, 1),))])
@pytest.mark.parametrize(("visible", "wanted"), [(20, 4), (0, 2)])
def test_a_wish_that_is_not_carried_out_does_not_grow(rule, visible, wanted):
    """As in a pause of an hour, after which the fleet would make up for every step at once."""
    state, wishes = {}, set()
    for tick in range(240):
        decision = rule.decide(seen(at_s=15.0 * tick, target=3, visible=visible), state)
        state = decision.state
        wishes.add(decision.capacity)
    assert wishes == {wanted}


def test_taking_away_is_wished_for_until_the_fleet_has_followed():
    first = Threshold().decide(seen(), {})
    assert first.capacity == 1
    assert Threshold().decide(seen(at_s=1015.0), first.state).capacity == 1


def test_new_bounds_hold_at_once_even_in_the_pause():
    first = Threshold().decide(seen(visible=20), {})
    assert Threshold().decide(seen(at_s=1015.0, visible=20, max_capacity=2), first.state).capacity == 2


def test_idle_stop_starts_at_the_first_task_and_stops_after_half_an_hour_without():
    rule, at_s, state = IdleStop(idle_stop_minutes=30), 0.0, {}
    assert rule.decide(seen(at_s=at_s, target=0, visible=1), state).capacity == 1
    wanted = []
    for minute in range(33):
        decision = rule.decide(seen(at_s=60.0 * minute, target=1), state)
        state = json.loads(json.dumps(decision.state))
        wanted.append(decision.capacity)
    assert wanted == [1] * 30 + [0] * 3


@pytest.mark.parametrize(
    "facts", [{"running": 1}, {"in_flight": 1}, {"held_waiting": 1, "in_flight": 1}, {"delayed": 1}]
)
def test_idle_stop_never_stops_a_worker_with_work_however_long_the_queue_is_empty(facts):
    state = {"idle_since_s": 0.0}
    decision = IdleStop().decide(seen(at_s=1e6, target=1, **facts), state)
    assert decision.capacity == 1
    assert IdleStop().decide(seen(at_s=1e6 + 15, target=1), decision.state).capacity == 1, "idleness begins anew"


def test_idle_stop_wants_one_however_much_waits():
    assert IdleStop().decide(seen(target=0, visible=500), {}).capacity == 1


def of(name, **keys):
    return policy(Autoscaling.model_validate({"policy": name, **keys}))


def test_choice_gives_each_policy_its_own_settings():
    assert of("threshold", scale_out_threshold=7, scale_in_step=2, steps="1:1") == Threshold(
        scale_out_threshold=7, scale_in_step=2
    )
    assert of("step", steps="3:4", cooldown_s=5.0) == Step(steps=((3, 4),), cooldown_s=5.0)
    assert of("idle-stop", idle_stop_minutes=3) == IdleStop(idle_stop_minutes=3)


def test_what_nobody_sets_is_the_same_in_the_section_and_in_the_policy():
    assert [of(name) for name in POLICIES] == [Backlog(), Threshold(), Step(), IdleStop()]
    assert [of(name).name for name in POLICIES] == list(POLICIES)


def test_a_worth_in_seconds_takes_the_presets_place():
    assert of("backlog", preset="prompt", late_worth_s=700.0) == Backlog(late_worth_s=700.0)
    worths_s = [of("backlog", preset=preset).late_worth_s for preset in PRESETS]
    assert worths_s == sorted(LATE_WORTH_S.values()), "from thrifty to prompt"


counts = st.integers(0, 300)


@given(
    name=st.sampled_from(POLICIES),
    ticks=st.lists(st.tuples(counts, counts, st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8),
    least=st.integers(0, 6),
    room=st.integers(1, 6),
)
def test_every_policy_keeps_to_the_bounds_and_its_state_is_small_json(name, ticks, least, room):
    rule, state, received = of(name), {}, 0
    for n, (visible, flown, running, target) in enumerate(ticks):
        received += running
        snapshot = seen(
            at_s=15.0 * n,
            target=target,
            visible=visible,
            in_flight=flown,
            running=running,
            received_total=received,
            min_capacity=least,
            max_capacity=least + room,
        )
        decision = rule.decide(snapshot, state)
        assert least <= decision.capacity <= least + room
        assert decision.reasons
        state = json.loads(json.dumps(decision.state))
        assert rule.decide(snapshot, state) == rule.decide(snapshot, decision.state), "JSON loses nothing"
        assert len(json.dumps(state)) < 10_000


@given(name=st.sampled_from(POLICIES), visible=counts, more=counts, running=st.integers(0, 8), target=st.integers(0, 8))
def test_more_backlog_never_wants_fewer_workers(name, visible, more, running, target):
    rule = of(name)
    before = seen(at_s=0.0, target=target, running=running, received_total=50)
    state = rule.decide(before, {}).state
    few, many = (
        seen(at_s=400.0, target=target, running=running, received_total=50, visible=count)
        for count in (visible, visible + more)
    )
    assert rule.decide(few, state).capacity <= rule.decide(many, state).capacity


@given(
    name=st.sampled_from(("backlog", "threshold", "step")),
    visible=counts,
    running=st.integers(1, 8),
    more=st.integers(0, 8),
)
def test_no_policy_wants_fewer_workers_than_are_busy(name, visible, running, more):
    target, rule = running + more, of(name)
    state = rule.decide(seen(at_s=0.0, target=target, visible=1, max_capacity=16), {}).state
    facts = {"visible": visible, "running": running, "in_flight": running, "max_capacity": 16}
    assert rule.decide(seen(at_s=5000.0, target=target, **facts), state).capacity >= running
