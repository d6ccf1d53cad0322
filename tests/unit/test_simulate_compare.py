"""A comparison: figures that can be worked out by hand, who lies on the frontier, and what is recommended."""

from __future__ import annotations

import json

import pytest
from simulate_rows import PLAIN, row

from scheduler.simulate.compare import Report, compare
from scheduler.simulate.contenders import Contender, contender, everybody
from scheduler.simulate.demand import Demand, generate
from scheduler.simulate.model import Arrival, Terms
from scheduler.simulate.row import frontier

NEEDED = {
    "policy",
    "gpu_hours",
    "cost_usd",
    "busy_share",
    "wait_p50_s",
    "wait_p95_s",
    "wait_p99_s",
    "late_share",
    "killed",
    "actions",
    "peak",
}


def named(*names: str, terms: Terms = PLAIN) -> list[Contender]:
    return [contender(name, terms, {}) for name in names]


@pytest.fixture(scope="module")
def hour() -> Report:
    """A task each minute for an hour from the tenth minute on, 30 s of work each: half a GPU."""
    arrivals = [Arrival(600.0 + 60.0 * number, 30.0) for number in range(50)]
    demand = Demand.seen("an hour", [Arrival(0.0, 30.0), *arrivals])
    return compare(named("static-1", "static-2", "buildkite"), demand, PLAIN, most_late=0.05)


def test_the_oracles_come_first_and_the_patient_one_is_the_unit(hour):
    assert [row.policy for row in hour.rows] == ["oracle-0", "oracle-60", "static-1", "static-2", "buildkite"]
    assert hour.rows[1].x_oracle == 1.0
    assert hour.rows[0].late_share == hour.rows[1].late_share == 0
    assert hour.rows[1].gpu_hours <= hour.rows[0].gpu_hours


def test_the_figures_are_what_they_are_called(hour):
    one, two = hour.rows[2:4]
    lasted_s = 600.0 + 49 * 60.0 + 30.0
    assert one.gpu_hours == pytest.approx((lasted_s - 30.0) / 3600)
    assert one.cost_usd == pytest.approx(one.gpu_hours * 0.18)
    assert one.month_usd == pytest.approx(one.cost_usd * 30 * 24)
    assert one.busy_share == pytest.approx(51 * 30.0 / (lasted_s - 30.0))
    assert two.gpu_hours == pytest.approx(2 * one.gpu_hours)
    assert one.late_share == pytest.approx(1 / 51), "the first waits for the boot"
    assert one.x_oracle == pytest.approx(one.gpu_hours / hour.rows[1].gpu_hours)


def test_json_has_what_is_promised(hour):
    told = json.loads(json.dumps(hour.figures()))
    assert all(set(row) >= NEEDED for row in told["policies"])
    assert told["demand"]["tasks"] == 51
    assert told["world"]["max_capacity"] == 4
    recommended = told["recommendation"]
    assert (recommended["policy"], recommended["most_late"], recommended["peak"]) == ("static-1", 0.05, 1)
    assert recommended["settings"] == {"policy": "backlog", "min_capacity": "1", "max_capacity": "1"}


def test_it_is_told_how_far_the_comparison_is():
    told: list[str] = []
    demand = generate("poisson:days=0.1,rate=0.02")
    compare(named("threshold", "keda-1"), demand, PLAIN, most_late=0.05, tell=told.append)
    assert told[:4] == [
        "simulating the oracles",
        "simulating 1 of 2: threshold, day 0.0 of 0.1",
        "simulating 1 of 2: threshold, day 0.0 of 0.1",
        "simulating 1 of 2: threshold, day 0.1 of 0.1",
    ]
    assert "simulating 2 of 2: keda-1, day 0.0 of 0.1" in told


def test_watching_changes_nothing():
    demand, [policy] = generate("poisson:days=0.1,rate=0.05"), named("backlog:prompt")
    row = compare([policy], demand, PLAIN, most_late=0.05).rows[-1]
    assert row.contender is policy
    assert row.gpu_hours == policy.run(demand.arrivals).gpu_hours


def test_everybody_can_be_compared():
    demand = generate("poisson:days=0.05,rate=0.02,service=20")
    report = compare(everybody(PLAIN, {}), demand, PLAIN, most_late=0.05)
    names = [row.policy for row in report.rows]
    assert len(names) == len(set(names))
    assert {"backlog:prompt", "threshold", "step", "idle-stop", "target-tracking", "buildkite"} < set(names)
    assert all(row.gpu_hours > 0 and not row.unserved for row in report.rows)
    killers = {row.policy for row in report.rows if row.killed}
    assert not {name for name in killers if name.startswith(("backlog", "threshold", "step", "idle-stop", "oracle"))}


def test_the_frontier_is_what_nobody_beats_in_both():
    rows = [
        row("dear and prompt", 9, 0.01),
        row("beaten", 8, 0.2),
        row("cheap and late", 1, 0.5),
        row("middle", 5, 0.1),
        row("as late but dearer", 6, 0.1),
        row("oracle", 0.5, 0.0, contender=None),
    ]
    assert [one.policy for one in frontier(rows)] == ["cheap and late", "middle", "dear and prompt"]
    demand = Demand.seen("", [Arrival(0.0, 1.0)])
    report = Report(demand=demand, world=PLAIN, most_late=0.05, rows=tuple(rows), advice=None)
    told = report.figures()["policies"]
    assert [one["policy"] for one in told if one["on_frontier"]] == ["dear and prompt", "cheap and late", "middle"]


def test_more_capacity_never_makes_a_static_fleet_later():
    demand = generate("sd:days=0.5,load=2,seed=3")
    report = compare(named(*(f"static-{count}" for count in (1, 2, 4))), demand, PLAIN, most_late=0.05)
    lates = [one.late_share for one in report.rows[2:]]
    assert lates == sorted(lates, reverse=True)
