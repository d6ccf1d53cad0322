"""Pictures: what is drawn is what was simulated, and a file that cannot be drawn is refused before."""

from __future__ import annotations

import builtins
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scheduler.domain.errors import ConfigError
from scheduler.simulate import plot
from scheduler.simulate.contenders import contender
from scheduler.simulate.model import Arrival, Outcome, Terms
from scheduler.simulate.plot import BINS, NoPlots, Point, binned, undominated
from scheduler.simulate.rivals import Static
from scheduler.simulate.world import simulate

ARRIVALS = [Arrival(60.0 * number, 30.0) for number in range(100)]
POINTS = [Point("backlog:balanced", "a", 3.0, 0.1), Point("keda", "b", 4.0, 0.2, 7), Point("static", "c", 9.0, 0.0)]


def outcome(name: str) -> Outcome:
    return contender(name, Terms(), {}).run(ARRIVALS, keep_samples=True)


def words(path: Path) -> str:
    ET.fromstring(path.read_bytes())  # it is whole
    return path.read_text()


@pytest.mark.parametrize("ending", ["png", "svg", "PNG"])
def test_both_pictures_are_of_the_kind_that_the_name_says(tmp_path, ending):
    over_time, frontier = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    plot.over_time(over_time, [outcome("backlog"), outcome("keda-1")], ARRIVALS, title="some demand")
    plot.frontier(frontier, POINTS, oracle_usd=2.0, title="some demand", most_late=0.05)
    for path in (over_time, frontier):
        if ending == "svg":
            assert words(path)
        else:
            with Image.open(path) as image:
                assert image.format == "PNG"
                assert len(image.convert("RGB").getcolors(maxcolors=10**6)) > 10, "something is drawn"


def test_one_outcome_without_work_can_be_drawn(tmp_path):
    idle = simulate([Arrival(0.0, 1.0)], Static(capacity=0), Terms(), keep_samples=True)
    plot.over_time(tmp_path / "a.svg", [idle], [Arrival(0.0, 1.0)], title="nothing")
    assert words(tmp_path / "a.svg")


def test_a_frontier_of_equal_points_can_be_drawn(tmp_path):
    plot.frontier(tmp_path / "a.svg", POINTS[:1] * 2, oracle_usd=3.0, title="one", most_late=0.05)
    assert words(tmp_path / "a.svg")


@pytest.mark.parametrize("name", ["a.jpg", "a", "nowhere/a.png"])
def test_a_file_that_cannot_be_drawn_is_refused_before(tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        plot.check(tmp_path / name)


def test_a_file_that_can_be_drawn_is_not_made_by_asking(tmp_path):
    plot.check(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(NoPlots, match="install matplotlib"):
        plot.check(tmp_path / "a.png")


def test_a_disk_that_takes_nothing_is_told(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ConfigError, match=r"a\.png"):
        plot.frontier(tmp_path / "a.png", POINTS, oracle_usd=2.0, title="x", most_late=0.05)


@given(values=st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 100)), min_size=1))
def test_bins_lose_no_peak(values):
    times, highest = binned(values, span_s=1000.0)
    assert len(times) == len(highest) == BINS
    assert max(highest) == max(value for _, value in values)
    for at_s, value in values:
        assert highest[min(BINS - 1, int(at_s / 1000.0 * BINS))] >= value


def test_the_undominated_are_those_that_nobody_beats_in_both():
    points = [Point("f", "n", *pair) for pair in ((1, 0.5), (2, 0.6), (2, 0.2), (3, 0.2), (4, 0.1))]
    random.Random(1).shuffle(points)
    assert [(one.usd, one.late_share) for one in undominated(points)] == [(1, 0.5), (2, 0.2), (4, 0.1)]
