"""The simulated fleet: what it costs and who waits, where that can be worked out by hand, and what always holds."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.autoscale.policies.backlog import Backlog
from scheduler.autoscale.policies.idle_stop import IdleStop
from scheduler.autoscale.policies.step import Step
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot
from scheduler.simulate.model import Arrival, Manner, Shortage, Terms
from scheduler.simulate.oracle import oracle
from scheduler.simulate.world import simulate

PLAIN = Terms(boot_sigma=0.0, reclaims_per_hour=0.0, counts_age_s=(0.0, 0.0), switch_s=0.0)
"""A world without chance."""


class Wanted:
    """Wants what a function of the time says, and keeps what it was told."""

    name = "wanted"

    def __init__(self, *changes: tuple[float, int]) -> None:
        self.changes = changes
        self.told: list[Snapshot] = []

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        self.told.append(snapshot)
        wanted = [capacity for at_s, capacity in self.changes if at_s <= snapshot.at_s]
        return Decision(capacity=wanted[-1] if wanted else 0, reasons=())


def always(capacity: int) -> Wanted:
    return Wanted((0.0, capacity))


def tasks(count: int, *, every_s: float = 10.0, service_s: float = 20.0, first_s: float = 0.0) -> list[Arrival]:
    return [Arrival(first_s + number * every_s, service_s) for number in range(count)]


def test_one_task_waits_for_the_launch_and_the_boot_and_both_runs_are_billed():
    outcome = simulate([Arrival(0.0, 20.0)], always(1), PLAIN)
    assert outcome.waits_s == (180.0,)
    assert outcome.gpu_s == 150.0 + 20.0, "the launch is not billed"
    assert outcome.busy_s == 20.0
    assert (outcome.actions, outcome.peak, outcome.killed) == (1, 1, 0)


def test_a_worker_that_is_there_takes_a_task_at_once():
    outcome = simulate(tasks(3, first_s=500.0, every_s=30.0), always(1), PLAIN)
    assert outcome.waits_s == (0.0, 0.0, 0.0)


def test_tasks_queue_up_behind_each_other():
    outcome = simulate(tasks(3, first_s=500.0, every_s=0.0), always(1), PLAIN)
    assert sorted(outcome.waits_s) == [0.0, 20.0, 40.0]


def test_another_checkpoint_costs_a_switch():
    terms = replace(PLAIN, switch_s=5.0)
    arrivals = [Arrival(500.0 + 100 * number, 20.0, model) for number, model in enumerate("aaba")]
    assert simulate(arrivals, always(1), terms).busy_s == 20 + 15 + 20 + 20


def test_idle_workers_go_and_are_billed_until_they_have_gone():
    policy = Wanted((0.0, 1), (300.0, 0))
    outcome = simulate([Arrival(0.0, 20.0), Arrival(3600.0, 20.0)], Wanted(*policy.changes, (3600.0, 1)), PLAIN)
    first_life_s = 300.0 + PLAIN.leave_s - 30.0
    assert outcome.gpu_s == first_life_s + 150.0 + 20.0


def test_a_short_life_is_billed_a_minute():
    policy = Wanted((0.0, 1), (300.0, 0), (600.0, 1))
    terms = replace(PLAIN, boot_s=1.0, least_billed_s=600.0)
    assert simulate([Arrival(0.0, 1.0)], policy, terms).gpu_s == 600.0


def test_a_busy_worker_is_never_asked_to_go():
    policy = Wanted((0.0, 1), (195.0, 0))
    outcome = simulate([Arrival(0.0, 500.0)], policy, PLAIN)
    assert outcome.killed == 0
    assert outcome.waits_s == (180.0,)


def test_a_blind_fleet_kills_and_the_task_begins_anew_when_its_message_is_back():
    policy = Wanted((0.0, 1), (195.0, 0), (210.0, 1))
    outcome = simulate([Arrival(0.0, 100.0)], policy, replace(PLAIN, manner=Manner.BLIND))
    assert outcome.killed == 1
    assert outcome.waits_s == (495.0,), "killed after 15 s, back 300 s later, when the next worker idles"
    assert outcome.busy_s == 15.0 + 100.0


def test_leaving_workers_are_taken_back_before_new_ones_are_asked_for():
    policy = Wanted((0.0, 1), (300.0, 0), (315.0, 1))
    outcome = simulate([Arrival(0.0, 1.0), Arrival(330.0, 20.0)], policy, PLAIN)
    assert outcome.waits_s[1] == 0.0
    assert outcome.peak == 1


def test_what_was_not_launched_is_called_off_and_costs_nothing():
    policy = Wanted((0.0, 1), (1000.0, 5), (1015.0, 1))
    outcome = simulate([Arrival(0.0, 1.0), Arrival(2000.0, 1.0)], policy, PLAIN)
    assert outcome.peak == 1


def test_interruptions_are_replaced_and_what_cannot_finish_is_given_back():
    terms = replace(PLAIN, reclaims_per_hour=6.0, seed=3)
    outcome = simulate(tasks(20, every_s=400.0, service_s=300.0, first_s=200.0), always(1), terms)
    assert outcome.interrupted > 0
    assert outcome.killed == 0
    assert len(outcome.waits_s) == 20


def test_a_pool_that_is_empty_gives_no_more():
    outcome = simulate(tasks(10, every_s=0.0), always(5), replace(PLAIN, shortages=(Shortage(0.0, math.inf, 2),)))
    assert outcome.peak == 2


def test_a_shortage_delays_launches_until_it_is_over():
    terms = replace(PLAIN, shortages=(Shortage(0.0, 1000.0, 0),))
    outcome = simulate([Arrival(0.0, 20.0)], always(1), terms)
    assert 1150.0 <= outcome.waits_s[0] <= 1150.0 + PLAIN.launch_s
    assert outcome.gpu_s == 150.0 + 20.0


def test_what_is_asked_for_again_takes_as_long_as_at_first():
    outcome = simulate([Arrival(0.0, 20.0)], Wanted((0.0, 1), (15.0, 0), (45.0, 1)), PLAIN)
    assert outcome.waits_s == (45.0 + 180.0,)


def test_a_fleet_that_never_catches_up_is_given_up_after_a_day():
    outcome = simulate([Arrival(0.0, 20.0), Arrival(100.0, 20.0)], always(0), PLAIN)
    assert outcome.unserved == 2
    assert outcome.gpu_s == 0.0
    assert min(outcome.waits_s) > 86_400, "they waited all the time"


def test_without_demand_nothing_is_paid():
    outcome = simulate([], always(0), PLAIN)
    assert (outcome.gpu_s, outcome.waits_s, outcome.late_share, outcome.waits_at_s(0.5)) == (0.0, (), 0.0, (0.0,))


def test_the_message_of_a_killed_worker_is_in_flight_until_it_is_back():
    policy = Wanted((0.0, 1), (195.0, 0), (480.0, 1))
    simulate([Arrival(0.0, 100.0)], policy, replace(PLAIN, manner=Manner.BLIND))
    told = {one.at_s: (one.visible, one.in_flight, one.running) for one in policy.told}
    assert told[300.0] == (0, 1, 0)
    assert told[510.0] == (1, 0, 0)


def test_a_policy_is_told_of_a_leaving_worker_as_the_real_leader_tells():
    policy = Wanted((0.0, 3), (600.0, 2), (615.0, 4))
    simulate([Arrival(900.0, 1.0)], policy, PLAIN)
    told = {one.at_s: (one.target, one.serving, one.draining, one.unlaunched) for one in policy.told}
    assert told[600.0] == (3, 3, 0, 0)
    assert told[615.0] == (3, 2, 1, 0), "the target is lowered once it has consented"
    assert told[630.0] == (4, 3, 0, 1), "taken back, and one more asked for"


def test_workers_go_by_batches_of_a_quarter():
    policy = Wanted((0.0, 8), (600.0, 0))
    simulate([Arrival(2000.0, 1.0)], policy, PLAIN)
    serving = [one.serving for one in policy.told if 600.0 <= one.at_s < 1200.0]
    assert serving[:9] == [8, 6, 6, 6, 5, 5, 5, 4, 4]
    assert serving[-1] == 0


def test_counts_are_as_old_as_the_terms_say():
    policy = always(0)
    policy.changes = ((0.0, 0), (300.0, 1))
    simulate([Arrival(100.0, 1.0)], policy, replace(PLAIN, counts_age_s=(60.0, 60.0)))
    visible = {snapshot.at_s: snapshot.visible for snapshot in policy.told}
    assert (visible[150.0], visible[165.0]) == (0, 1)


def test_workers_end_themselves_where_that_is_the_habit():
    terms = replace(PLAIN, idle_exit_s=600.0, min_capacity=0)
    policy = Wanted((0.0, 1))
    outcome = simulate([Arrival(0.0, 20.0)], policy, terms)
    assert outcome.peak == 1
    later = simulate([Arrival(0.0, 20.0), Arrival(7200.0, 20.0)], policy, terms)
    assert later.gpu_s < 7200.0


def test_the_same_seed_gives_the_same_outcome_and_another_does_not():
    arrivals = tasks(300, every_s=7.0)
    policy = Backlog()
    first, again, other = (simulate(arrivals, policy, Terms(seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@settings(max_examples=60, deadline=None)
@given(
    gaps_s=st.lists(st.floats(0, 2000), min_size=1, max_size=60),
    service_s=st.floats(1, 200),
    policy=st.sampled_from([Backlog(), Threshold(), Step(), IdleStop()]),
    manner=st.sampled_from(Manner),
    seed=st.integers(0, 5),
    reclaims=st.sampled_from([0.0, 1.0]),
)
def test_every_task_is_done_and_what_is_billed_covers_the_work(
    gaps_s: list[float], service_s: float, policy: str, manner: Manner, seed: int, reclaims: float
) -> None:
    at_s, arrivals = 0.0, []
    for gap_s in gaps_s:
        at_s += gap_s
        arrivals.append(Arrival(at_s, service_s, random.Random(seed).choice("ab")))
    terms = Terms(manner=manner, seed=seed, reclaims_per_hour=reclaims, max_capacity=5, min_capacity=1)
    outcome = simulate(arrivals, policy, terms)
    assert len(outcome.waits_s) == len(arrivals)
    assert min(outcome.waits_s) >= 0
    assert outcome.gpu_s >= outcome.busy_s >= len(arrivals) * max(1.0, service_s - terms.switch_s) * 0.999
    assert outcome.peak <= 5 + 5 * (reclaims > 0)
    assert manner is Manner.BLIND or outcome.killed == 0


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    reclaims=st.sampled_from([0.0, 1.0, 30.0]),
    manner=st.sampled_from(Manner),
)
def test_whatever_is_wanted_what_a_policy_is_told_adds_up(changes: list[int], reclaims: float, manner: Manner) -> None:
    policy = Wanted(*((45.0 * number, capacity) for number, capacity in enumerate(changes)), (45.0 * len(changes), 2))
    terms = Terms(reclaims_per_hour=reclaims, manner=manner, max_capacity=6)
    outcome = simulate(tasks(60, every_s=20.0), policy, terms)
    assert outcome.unserved == 0
    for told in policy.told:
        members = told.serving + len(told.booting_s) + told.draining
        assert min(told.serving, told.draining, told.visible, told.in_flight) >= 0
        assert members + told.unlaunched >= told.target
        assert told.running <= told.serving + told.draining
        assert list(told.booting_s) == sorted(told.booting_s)
        assert reclaims or told.target <= 6


# the oracle


def cheapest(ends_s: tuple[float, ...], arrivals: list[Arrival]) -> float:
    """The least that boots and gaps cost when nobody waits, by trying everything."""
    if not arrivals:
        return 0.0
    (at_s, service_s, *_), *others = arrivals
    found = [PLAIN.boot_s + cheapest((*ends_s, at_s + service_s), others)]
    for number, end_s in enumerate(ends_s):
        if end_s <= at_s:
            left = (*ends_s[:number], *ends_s[number + 1 :], at_s + service_s)
            found.append(min(at_s - end_s, PLAIN.boot_s) + cheapest(left, others))
    return min(found)


@settings(max_examples=60, deadline=None)
@given(tasks_=st.lists(st.tuples(st.integers(0, 120), st.integers(5, 200)), min_size=1, max_size=6))
def test_the_oracle_without_patience_is_the_cheapest_of_all_schedules(tasks_: list[tuple[int, int]]) -> None:
    at_s, arrivals = 0.0, []
    for gap_s, service_s in tasks_:
        at_s += gap_s
        arrivals.append(Arrival(at_s, float(service_s)))
    work_s = sum(one.service_s for one in arrivals)
    assert oracle(arrivals, PLAIN, patience_s=0.0).gpu_s == pytest.approx(work_s + cheapest((), arrivals))


def test_the_oracle_prefers_the_worker_that_has_the_checkpoint():
    terms = replace(PLAIN, switch_s=5.0)
    arrivals = [Arrival(0.0, 20.0, "a"), Arrival(1.0, 20.0, "b"), Arrival(30.0, 20.0, "a")]
    assert oracle(arrivals, terms, patience_s=0.0).gpu_s == 2 * 150 + 2 * 20 + 10 + 15, (
        "10 s idle cost as much, no switch"
    )


def test_the_patient_oracle_lets_nobody_wait_longer_and_costs_less():
    arrivals = [Arrival(number * 9.0, 30.0) for number in range(200)]
    none, some = (oracle(arrivals, Terms(), patience_s=patience_s) for patience_s in (0.0, 60.0))
    assert max(none.waits_s) == 0.0
    assert 0 < max(some.waits_s) <= 60.0
    assert some.gpu_s < none.gpu_s
    assert (none.policy, some.policy) == ("oracle-0", "oracle-60")


@pytest.mark.parametrize(("gap_s", "gpu_s"), [(100.0, 150 + 20 + 100 + 20), (1000.0, 2 * (150 + 20))])
def test_a_gap_costs_the_idling_or_another_boot(gap_s: float, gpu_s: float) -> None:
    arrivals = [Arrival(0.0, 20.0), Arrival(20.0 + gap_s, 20.0)]
    assert oracle(arrivals, PLAIN, patience_s=0.0).gpu_s == gpu_s


@given(gaps_s=st.lists(st.floats(0, 500), min_size=1, max_size=40))
def test_a_policy_in_which_nobody_waits_costs_no_less_than_the_oracle(gaps_s: list[float]) -> None:
    at_s, arrivals = 400.0, []
    for gap_s in gaps_s:
        at_s += gap_s
        arrivals.append(Arrival(at_s, 20.0))
    enough = simulate(arrivals, always(len(arrivals)), replace(PLAIN, max_capacity=100))
    assert max(enough.waits_s) == 0.0
    assert enough.gpu_s >= oracle(arrivals, PLAIN, patience_s=0.0).gpu_s - 1e-6
