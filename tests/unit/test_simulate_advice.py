"""What is recommended: the cheapest that is late seldom enough, as it was simulated, and what would do better."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulate_rows import PLAIN, row

from scheduler.config_sections import Autoscaling
from scheduler.simulate.advice import Advice, advise
from scheduler.simulate.compare import compare
from scheduler.simulate.contenders import Contender, contender
from scheduler.simulate.demand import generate
from scheduler.simulate.model import Terms
from scheduler.simulate.row import Row

BUILDKITE = contender("buildkite", PLAIN, {})


def advice_of(*rows: Row, again: Row | None = None, most_late: float = 0.05) -> Advice:
    """Return the advice when whatever is simulated once more comes to `again`, or to what it was."""

    def run(one: Contender) -> Row:
        template = again or next(other for other in rows if other.contender and other.contender.name == one.name)
        return replace(template, contender=one)

    found = advise(rows, most_late=most_late, run=run)
    assert found is not None
    return found


def test_the_cheapest_that_is_late_seldom_enough_is_recommended():
    oracle = row("oracle", 0.1, 0, contender=None)
    advice = advice_of(
        row("late", 1, 0.2), row("good", 3, 0.05), row("better", 4, 0.01), oracle, again=row("x", 3, 0.05)
    )
    assert (advice.row.gpu_hours, advice.is_met) == (3, True)


def test_otherwise_the_least_late_is_told_as_not_good_enough():
    advice = advice_of(row("late", 1, 0.2), row("less", 3, 0.1, peak=3), row("as dear", 4, 0.1))
    assert (advice.row.policy, advice.is_met, advice.larger) == ("less", False, None)


def test_what_left_tasks_undone_is_not_good_enough():
    advice = advice_of(row("gave up", 1, 0.01, unserved=3, peak=3), row("did it", 3, 0.02, peak=3))
    assert advice.row.policy == "did it"


def test_what_conf_ini_cannot_say_is_not_recommended():
    rows = [row("oracle", 0.1, 0, contender=None), row("buildkite", 1, 0, contender=BUILDKITE)]
    assert advise(rows, most_late=0.05, run=lambda _one: rows[0]) is None


@pytest.mark.parametrize(
    ("name", "settings", "written"),
    [
        ("backlog:prompt", {}, {"policy": "backlog", "preset": "prompt"}),
        ("backlog", {"target_wait_s": 30.0}, {"policy": "backlog", "target_wait_s": "30"}),
        ("step", {"steps": ((5, 1), (20, 3))}, {"policy": "step", "steps": "5:1, 20:3"}),
    ],
)
def test_what_is_recommended_can_be_written_into_the_configuration(name, settings, written):
    advice = advice_of(row(name, 1, 0.0, peak=4, contender=contender(name, PLAIN, settings)))
    assert advice.settings == {**written, "min_capacity": "0", "max_capacity": "4"}
    assert Autoscaling.model_validate(dict(advice.settings)).max_capacity == 4


def test_as_many_workers_always_are_written_as_both_bounds():
    advice = advice_of(row("late", 1, 0.2), row("static-2", 3, 0.0, peak=2, contender=contender("static-2", PLAIN, {})))
    assert advice.settings == {"policy": "backlog", "min_capacity": "2", "max_capacity": "2"}


# the bound


def test_no_larger_a_bound_is_written_than_was_used_and_a_quarter():
    wide = contender("backlog", replace(PLAIN, max_capacity=20), {})
    advice = advice_of(row("backlog", 1, 0.0, peak=8, contender=wide))
    assert (advice.settings["max_capacity"], advice.allowed) == ("10", 20)
    assert advice.row.contender is not None
    assert advice.row.contender.terms.max_capacity == 10, "it was simulated with what is written"


def test_the_bound_stays_where_a_smaller_one_does_less_well():
    wide = contender("backlog", replace(PLAIN, max_capacity=20), {})
    advice = advice_of(row("backlog", 1, 0.0, peak=8, contender=wide), again=row("backlog", 1, 0.06, peak=8))
    assert advice.settings["max_capacity"] == "20"


def test_no_bound_below_the_minimum_is_written():
    kept = contender("backlog", replace(PLAIN, min_capacity=3, max_capacity=20), {})
    advice = advice_of(row("backlog", 1, 0.0, peak=1, contender=kept))
    assert (advice.settings["min_capacity"], advice.settings["max_capacity"]) == ("3", "3")


@pytest.mark.parametrize(("late_share", "is_worth_it"), [(0.19, False), (0.15, True), (0.04, True)])
def test_a_larger_bound_is_advised_only_where_it_helps(late_share, is_worth_it):
    advice = advice_of(row("full", 1, 0.2, peak=4), again=row("full", 2, late_share, peak=8))
    assert advice.larger is not None
    assert (advice.larger.max_capacity, advice.larger.is_worth_it) == (8, is_worth_it)
    assert advice.figures()["larger"]["late_share"] == late_share
    assert advice.settings["max_capacity"] == "4", "what was wished is what is written"


def test_bursts_that_come_faster_than_a_boot_are_not_sent_to_a_larger_bound():
    demand = generate("burst:days=1,every=7200,size=40,service=20")
    report = compare([contender("backlog:prompt", PLAIN, {})], demand, PLAIN, most_late=0.05)
    assert report.advice is not None
    assert report.advice.larger is not None
    assert report.advice.larger.max_capacity == 8
    assert report.advice.larger.row.peak > 4


# others


def test_a_rival_that_keeps_the_wish_is_named_where_nothing_of_ours_does():
    rivals = [row("dear", 9, 0.04, contender=BUILDKITE), row("cheap", 8, 0.05, contender=BUILDKITE)]
    advice = advice_of(row("ours", 1, 0.2), *rivals)
    assert advice.better is not None
    assert advice.better.policy == "cheap"
    assert advice.figures()["better"]["late_share"] == 0.05


def test_a_rival_that_comes_nearer_is_named_too():
    rivals = [row("near", 9, 0.1, contender=BUILDKITE), row("gave up", 8, 0.07, unserved=1, contender=BUILDKITE)]
    advice = advice_of(row("ours", 1, 0.2), *rivals)
    assert advice.better is not None
    assert advice.better.policy == "near"


@pytest.mark.parametrize(("gpu_hours", "better"), [(0.5, "buildkite"), (2, None)])
def test_where_the_wish_is_kept_only_a_cheaper_rival_is_named(gpu_hours, better):
    advice = advice_of(row("ours", 1, 0.04), row("buildkite", gpu_hours, 0.05, contender=BUILDKITE))
    assert (advice.better and advice.better.policy) == better


def test_the_bounds_written_for_a_static_fleet_make_the_same_fleet():
    terms, demand = Terms(), generate("poisson:days=0.2,rate=0.1")
    static = contender("static-3", terms, {})
    written = contender("backlog", static.terms, {})
    one, other = static.run(demand.arrivals), written.run(demand.arrivals)
    assert (one.waits_s, one.gpu_s, one.peak) == (other.waits_s, other.gpu_s, 3)
