"""The default policy: what it wants for what waits, for what flows in, and how long it holds on."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.autoscale.policies.arrivals import HALF_LIFE_S, Arrivals
from scheduler.autoscale.policies.backlog import LATE_WORTH_S, MOST_PEAKS, Backlog
from scheduler.autoscale.snapshot import Snapshot

BOOT_S = 180.0
PRICELESS_S = 1e9
"""Being late is worth so much that boots are nothing beside it: the accepted wait is kept to the letter."""


def seen(at_s=0.0, target=0, **other):
    values = {"visible": 0, "serving": target, "service_s": 20.0, "boot_s": BOOT_S, "max_capacity": 50, **other}
    return Snapshot(at_s=at_s, target=target, **values)


def follow(policy, snapshots, state=None):
    """Return the capacity wanted at each snapshot, and the last state, which goes through JSON between any two."""
    wanted, state = [], state or {}
    for snapshot in snapshots:
        decision = policy.decide(snapshot, state)
        wanted.append(decision.capacity)
        state = json.loads(json.dumps(decision.state))
    return wanted, state


def steady(*, per_tick, ticks, workers, start_tick=0, received=0, **other):
    """Snapshots of a fleet that receives `per_tick` tasks every 15 s as they come."""
    busy = min(workers, round(per_tick * 20 / 15))
    for n in range(start_tick, start_tick + ticks):
        received += per_tick
        yield seen(15.0 * n, workers, received_total=received, running=busy, **other)


def test_nothing_at_all_wants_nothing():
    assert follow(Backlog(), [seen(15.0 * n) for n in range(4)])[0] == [0, 0, 0, 0]


def test_one_waiting_task_wants_one_worker_and_no_second_while_that_boots():
    booting = [seen(30.0 + 15 * n, 1, serving=0, booting_s=(15.0 * n,), visible=1) for n in range(12)]
    wanted, _ = follow(Backlog(), [seen(), seen(15.0, visible=1), *booting])
    assert wanted == [0] + [1] * 13


def test_a_batch_wants_as_many_as_do_it_within_the_accepted_wait_of_their_boot():
    wanted, _ = follow(Backlog(target_wait_s=60.0, late_worth_s=PRICELESS_S), [seen(visible=90)])
    assert wanted == [30], "90 x 20 s of work in 60 s"
    wanted, _ = follow(Backlog(target_wait_s=600.0, late_worth_s=PRICELESS_S), [seen(visible=90)])
    assert wanted == [3]


def test_a_batch_waits_longer_where_a_boot_is_worth_more_than_its_lateness():
    wanted, _ = follow(Backlog(target_wait_s=60.0, late_worth_s=BOOT_S), [seen(visible=90)])
    assert wanted == [15], "a boot is worth as much as one late task: twice the wait"


def test_booting_workers_count_for_the_part_of_the_horizon_that_they_will_serve():
    def wanted(age_s):
        fleet = seen(target=10, serving=0, visible=90, booting_s=(age_s,) * 10)
        return Backlog(late_worth_s=PRICELESS_S).decide(fleet, {}).capacity

    assert wanted(0.0) == 30, "90 x 20 s of work, 10 x 60 s of them by those who boot"
    assert wanted(120.0) == 10, "they come sooner, and do 180 s each within the time"
    assert wanted(3 * BOOT_S) == 40, "who should have come long ago is not counted on"


def test_never_more_workers_than_tasks():
    assert follow(Backlog(target_wait_s=1.0), [seen(visible=3)])[0] == [3]


def test_a_steady_flow_keeps_its_load_and_room_for_chance():
    wanted, _ = follow(Backlog(), steady(per_tick=6, ticks=120, workers=12))
    load = 6 / 15 * 20
    assert load < wanted[-1] <= load + 4
    generous, _ = follow(Backlog(late_worth_s=LATE_WORTH_S["prompt"]), steady(per_tick=6, ticks=120, workers=12))
    thrifty, _ = follow(Backlog(late_worth_s=LATE_WORTH_S["thrifty"]), steady(per_tick=6, ticks=120, workers=12))
    assert thrifty[-1] < wanted[-1] < generous[-1]


def test_a_steady_flow_does_not_flap():
    wanted, _ = follow(Backlog(), steady(per_tick=6, ticks=400, workers=12))
    assert len(set(wanted[150:])) == 1


def test_nothing_is_given_back_sooner_than_a_boot_takes():
    policy = Backlog(late_worth_s=PRICELESS_S)
    _, state = follow(policy, [seen(visible=60)])
    idle = [seen(15.0 * n, 20, received_total=60) for n in range(1, 60)]
    wanted, _ = follow(policy, idle, state)
    assert wanted[: int(BOOT_S / 15) - 1] == [20] * (int(BOOT_S / 15) - 1)
    assert wanted[-1] < 20
    assert wanted == sorted(wanted, reverse=True)


@pytest.mark.parametrize("preset", LATE_WORTH_S)
def test_the_first_worker_is_kept_as_long_as_those_are_worth_who_would_meet_none(preset):
    worth_s = LATE_WORTH_S[preset]
    keep_s = BOOT_S + worth_s * 2
    policy = Backlog(late_worth_s=worth_s)
    _, state = follow(policy, [seen(), seen(15.0, visible=1)])
    idle = [seen(15.0 * n, 1, received_total=1) for n in range(2, int(keep_s / 15) + 30)]
    wanted, _ = follow(policy, idle, state)
    kept = sum(wanted) * 15.0
    assert keep_s - 60 <= kept <= keep_s + 90
    assert wanted[-1] == 0


def test_starts_that_many_meet_lengthen_the_keeping():
    policy = Backlog()
    state = {}
    for start in range(8):
        at_s = 1e5 * start
        base = 30 * start
        ticks = [seen(at_s, received_total=base)]
        ticks += [seen(at_s + 15.0 * n, received_total=base, visible=2 * n) for n in range(1, 16)]
        ticks += [seen(at_s + 15.0 * n, 1, received_total=base + 30, visible=0) for n in range(16, 30)]
        _, state = follow(policy, ticks, state)
    assert state["crowd"] > 4, "2 is assumed at first"


def test_a_batch_that_one_warm_worker_could_not_have_served_does_not_keep_it_for_hours():
    policy = Backlog()
    _, state = follow(policy, [seen(), seen(15.0, visible=500)])
    _, state = follow(policy, [seen(15.0 + 15 * n, 50, received_total=500) for n in range(1, 20)], state)
    assert state["cold"] is None, "the start was counted"
    assert state["crowd"] <= 2 + 0.05 * (1 + BOOT_S / 20)


def test_a_task_that_a_worker_has_taken_is_not_taken_for_waiting():
    before = Arrivals.after(seen(0.0), None)
    before = Arrivals.after(seen(15.0, 1, received_total=1, running=1), before.remembered())
    for n in range(2, 5):
        stale = seen(15.0 * n, 1, received_total=1, running=1, visible=1)
        now = Arrivals.after(stale, before.remembered())
        before = now
    assert now.sent <= 1
    assert now.waiting == 0


def test_tasks_given_back_are_forgotten_once_the_queue_has_been_empty_for_a_minute():
    state = None
    counts = [(0, 5), (3, 5), (3, 5), (3, 5), (3, 5), (3, 5), (3, 5), *[(0, 5)] * 6]
    for n, (visible, received) in enumerate(counts):
        now = Arrivals.after(seen(15.0 * n, 1, visible=visible, received_total=received), state)
        state = now.remembered()
        if n == 6:
            assert now.waiting == 3
    assert now.waiting == 0


def test_the_flow_is_halved_in_its_half_life():
    now = Arrivals.after(seen(0.0), None)
    now = Arrivals.after(seen(15.0, 4, received_total=40), now.remembered())
    later = Arrivals.after(seen(15.0 + HALF_LIFE_S, 4, received_total=40), now.remembered())
    assert later.per_s == pytest.approx(now.per_s / 2)


def test_another_leader_goes_on_where_the_last_one_stopped():
    ticks = list(steady(per_tick=3, ticks=40, workers=6))
    whole, _ = follow(Backlog(), ticks)
    first, state = follow(Backlog(), ticks[:20])
    second, _ = follow(Backlog(), ticks[20:], state)
    assert whole == first + second


def test_reasons_tell_the_figures():
    decision = Backlog().decide(seen(visible=90), {})
    assert "1800 s of work wait" in decision.reasons[0]


tick = st.fixed_dictionaries(
    {
        "visible": st.integers(0, 400),
        "arrived": st.integers(0, 40),
        "running": st.integers(0, 30),
        "elapsed_s": st.floats(1.0, 4000.0),
    }
)


def history(ticks, workers, **other):
    now = SimpleNamespace(at_s=0.0, received=0)
    for one in ticks:
        now.at_s += one["elapsed_s"]
        now.received += one["arrived"]
        facts = {"visible": one["visible"], "running": min(workers, one["running"]), "received_total": now.received}
        yield seen(now.at_s, workers, **facts, **other)


@given(ticks=st.lists(tick, min_size=1, max_size=60), workers=st.integers(0, 50))
@settings(max_examples=60)
def test_what_it_remembers_stays_small_however_long_it_goes_on(ticks, workers):
    _, state = follow(Backlog(), history(ticks, workers))
    assert len(json.dumps(state)) < 4000
    assert len(state["peaks"]) <= MOST_PEAKS


@given(ticks=st.lists(tick, min_size=2, max_size=12), workers=st.integers(0, 50), more=st.integers(0, 300))
@settings(max_examples=100)
def test_more_in_the_queue_never_wants_fewer(ticks, workers, more):
    *before, last = history(ticks, workers)
    _, state = follow(Backlog(), before)
    fuller = seen(
        last.at_s,
        workers,
        visible=last.visible + more,
        running=last.running,
        received_total=last.received_total,
    )
    assert Backlog().decide(last, state).capacity <= Backlog().decide(fuller, state).capacity


@given(ticks=st.lists(tick, min_size=1, max_size=12), workers=st.integers(0, 50))
@settings(max_examples=100)
def test_never_below_the_busy(ticks, workers):
    state = {}
    for snapshot in history(ticks, workers):
        decision = Backlog().decide(snapshot, state)
        assert decision.capacity >= min(snapshot.busy, snapshot.serving)
        state = decision.state


def test_what_is_held_counts_by_what_its_like_took():
    held = {"held_waiting": 4, "in_flight": 5, "running": 1, "received_total": 5, "serving": 1}
    usual, long = (seen(0.0, 1, **held, held_waiting_s=seconds) for seconds in (None, 2000.0))
    wanted = [Backlog(late_worth_s=PRICELESS_S).decide(snapshot, {}).capacity for snapshot in (usual, long)]
    assert wanted[1] > wanted[0]
