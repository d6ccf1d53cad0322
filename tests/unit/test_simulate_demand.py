"""Made-up demand is like the real one in every figure that is published, and says so when it is asked for wrongly."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from scheduler.domain.errors import ConfigError
from scheduler.simulate.demand import DAY_S, Demand, generate
from scheduler.simulate.model import Arrival

SEEDS = range(1, 9)
DAYS = 23


@pytest.fixture(scope="module")
def demands() -> list[Demand]:
    return [generate(f"sd:days={DAYS},seed={seed}") for seed in SEEDS]


def median(demands: list[Demand], figure: Callable[[Demand], float]) -> float:
    return statistics.median(figure(demand) for demand in demands)


def service(share: float) -> Callable[[Demand], float]:
    def figure(demand: Demand) -> float:
        seconds = sorted(one.service_s for one in demand.arrivals)
        return seconds[int(share * len(seconds))]

    return figure


def in_windows(demand: Demand, window_s: float) -> list[int]:
    counted = Counter(int(one.at_s // window_s) for one in demand.arrivals)
    return [counted[window] for window in range(int(demand.span_s // window_s))]


def dispersion(window_s: float) -> Callable[[Demand], float]:
    def figure(demand: Demand) -> float:
        counts = in_windows(demand, window_s)
        return statistics.pvariance(counts) / statistics.mean(counts)

    return figure


def empty(window_s: float) -> Callable[[Demand], float]:
    def figure(demand: Demand) -> float:
        counts = in_windows(demand, window_s)
        return counts.count(0) / len(counts)

    return figure


def variation_of_gaps(demand: Demand) -> float:
    times = [one.at_s for one in demand.arrivals]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return statistics.pstdev(gaps) / statistics.mean(gaps)


def nights(demand: Demand) -> float:
    return sum(one.at_s % DAY_S < 8 * 3600 for one in demand.arrivals) / len(demand.arrivals)


def popularity(first: int) -> Callable[[Demand], float]:
    def figure(demand: Demand) -> float:
        counted = Counter(one.model for one in demand.arrivals)
        return sum(count for _, count in counted.most_common(first)) / len(demand.arrivals)

    return figure


def switches(demand: Demand) -> float:
    models = [one.model for one in demand.arrivals]
    return sum(one != other for one, other in itertools.pairwise(models)) / (len(models) - 1)


@pytest.mark.parametrize(
    ("name", "figure", "published", "tolerance"),
    [
        ("service p5", service(0.05), 11.0, 0.05),
        ("service p50", service(0.5), 23.0, 0.03),
        ("service p95", service(0.95), 69.0, 0.05),
        ("service p99", service(0.99), 106.0, 0.06),
        ("mean load", lambda demand: demand.mean_load, 0.39, 0.05),
        ("variation of gaps", variation_of_gaps, 12.0, 0.15),
        ("dispersion, 1 min", dispersion(60), 3.8, 0.15),
        ("dispersion, 5 min", dispersion(300), 15.0, 0.15),
        ("dispersion, 1 h", dispersion(3600), 140.0, 0.2),
        ("empty hours", empty(3600), 1 / 3, 0.1),
        ("empty 5 minutes", empty(300), 0.57, 0.1),
        ("busiest hour", lambda demand: demand.busiest_hour_load, 3.4, 0.25),
        ("first checkpoint", popularity(1), 0.31, 0.03),
        ("first five", popularity(5), 0.70, 0.03),
        ("switches", switches, 0.75, 0.03),
        ("checkpoints", lambda demand: len({one.model for one in demand.arrivals}), 86, 0.02),
    ],
)
def test_sd_has_the_published_figures(demands, name, figure, published, tolerance):
    assert median(demands, figure) == pytest.approx(published, rel=tolerance), name


def test_sd_has_quiet_nights(demands):
    assert 0 < median(demands, nights) < 0.05


def test_arrivals_come_by_time_and_within_the_days():
    for spec in ("sd:days=2", "poisson:days=2", "burst:days=2"):
        demand = generate(spec)
        times = [one.at_s for one in demand.arrivals]
        assert times == sorted(times), spec
        assert times[0] >= 0, spec
        assert times[-1] < demand.span_s == 2 * DAY_S


def test_the_same_spec_gives_the_same_and_another_seed_another():
    assert generate("sd:days=2,seed=3") == generate("sd:days=2,seed=3")
    assert generate("sd:days=2,seed=3").arrivals != generate("sd:days=2,seed=4").arrivals


@pytest.mark.parametrize("load", [0.1, 2.0, 12.5])
def test_load_is_the_gpus_kept_busy(load):
    assert generate(f"sd:days=14,load={load}").mean_load == pytest.approx(load, rel=0.06)


def test_poisson_has_its_rate_and_no_memory():
    demand = generate("poisson:rate=0.1,days=3,service=25")
    assert len(demand.arrivals) == pytest.approx(0.1 * 3 * DAY_S, rel=0.02)
    assert variation_of_gaps(demand) == pytest.approx(1, rel=0.03)
    assert {one.service_s for one in demand.arrivals} == {25.0}


def test_a_burst_comes_at_once():
    demand = generate("burst:every=3600,size=200,service=20,days=2")
    assert Counter(one.at_s for one in demand.arrivals) == {3600.0 * number: 200 for number in range(48)}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("foo:days=1", ["'foo:days=1'", "sd, poisson, burst"]),
        ("sd:dais=1", ["'dais'", "days, load, seed"]),
        ("sd:days=x", ["days is 'x'", "a number from 0.001 to 3660"]),
        ("sd:days=0", ["days is '0'", "0.001"]),
        ("sd:load=nan", ["load is 'nan'"]),
        ("poisson:rate=inf", ["rate is 'inf'"]),
        ("sd:days", ["days is ''"]),
        ("sd:days=3660,load=1000", ["12,648,960,000 tasks", "20,000,000"]),
        ("poisson:rate=0.000001,days=0.01", ["no task", "a higher rate"]),
        ("", ["''", "sd, poisson, burst"]),
    ],
)
def test_what_is_not_understood_is_told_with_what_would_be(spec, said):
    with pytest.raises(ConfigError) as caught:
        generate(spec)
    assert all(words in str(caught.value) for words in said), caught.value


def test_everything_wrong_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        generate("sd:dais=1,load=x")
    assert len(caught.value.problems) == 2


def test_a_trace_stands_for_the_hours_from_its_first_task_to_its_last():
    demand = Demand.seen("trace", [Arrival(0.0, 900.0), Arrival(3700.0, 1800.0), Arrival(3800.0, 900.0)])
    assert demand.span_s == 7200.0
    assert (demand.mean_load, demand.busiest_hour_load) == (0.5, 0.75)
    assert demand.figures() == {
        "name": "trace",
        "tasks": 3,
        "days": 0.083,
        "work_gpu_hours": 1.0,
        "mean_load": 0.5,
        "busiest_hour_load": 0.75,
    }
    assert Demand.seen("one", [Arrival(0.0, 20.0)]).span_s == 3600.0


def test_times_are_finite():
    assert all(math.isfinite(one.at_s + one.service_s) for one in generate("sd:days=1,load=5").arrivals)
