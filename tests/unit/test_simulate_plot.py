"""Pictures: what is drawn is what was simulated, and a file that cannot be drawn is refused before."""

from __future__ import annotations

import builtins
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from scheduler.domain.errors import ConfigError
from scheduler.simulate import plot
from scheduler.simulate.contenders import contender
from scheduler.simulate.model import Arrival, Outcome, Terms
from scheduler.simulate.plot import BINS, NoPlots, Point, averaged, binned, undominated
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
    plot.frontier(frontier, POINTS, oracle=("oracle-60", 2.0), title="some demand", most_late=0.05)
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
    plot.frontier(tmp_path / "a.svg", POINTS[:1] * 2, oracle=("oracle-60", 3.0), title="one", most_late=0.05)
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
        plot.frontier(tmp_path / "a.png", POINTS, oracle=("oracle-60", 2.0), title="x", most_late=0.05)


@given(values=st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 100)), min_size=1))
def test_bins_lose_no_peak(values):
    times, highest = binned(values, span_s=1000.0)
    assert len(times) == len(highest) == BINS
    assert max(highest) == max(value for _, value in values)
    for at_s, value in values:
        assert highest[min(BINS - 1, int(at_s / 1000.0 * BINS))] >= value


def test_what_was_busy_half_of_the_time_is_drawn_half_as_high():
    values = [(float(second), second % 2) for second in range(48_000)]
    _, means = averaged(values, span_s=48_000.0)
    assert all(0.49 < mean < 0.51 for mean in means)
    _, few = averaged([(0.0, 3.0), (900.0, 1.0)], span_s=1000.0)
    assert (few[0], few[BINS // 2], few[-1]) == (3.0, 3.0, 1.0), "between two samples the last one holds"


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures in place of the files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plot, "_save", lambda figure, _path: figures.append(figure))
    return figures


def test_policies_over_time_have_panels_of_their_own_and_the_same_scales(drawn):
    plot.over_time(Path("a.svg"), [outcome("backlog"), outcome("static-4")], ARRIVALS, title="x")
    panels = drawn[0].axes
    assert len(panels) == 6
    for place in range(3):
        assert panels[place].get_ylim() == panels[place + 3].get_ylim()
    assert all(axes.get_legend() is None for axes in panels)


def test_a_frontier_is_in_dollars_a_month_and_names_ours_first(drawn):
    families = ["keda", "backlog:prompt", "buildkite", "backlog:thrifty", "threshold"]
    points = [Point(family, "x", 2.0 + number, 0.1) for number, family in enumerate(families)]
    plot.frontier(Path("a.svg"), points, oracle=("oracle-300", 1.5), title="x", most_late=0.05)
    [axes] = drawn[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("cost ($ a month, logarithmic)", "late tasks (%, logarithmic)")
    assert "oracle-300" in [text.get_text() for text in axes.texts]
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named == ["backlog:thrifty", "backlog:prompt", "threshold", "buildkite", "keda"]


def test_the_undominated_are_those_that_nobody_beats_in_both():
    points = [Point("f", "n", *pair) for pair in ((1, 0.5), (2, 0.6), (2, 0.2), (3, 0.2), (4, 0.1))]
    random.Random(1).shuffle(points)
    assert [(one.month_usd, one.late_share) for one in undominated(points)] == [(1, 0.5), (2, 0.2), (4, 0.1)]
