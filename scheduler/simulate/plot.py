"""Pictures of simulations, PNG or SVG by the file's ending. matplotlib draws them; hosts do without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scheduler.domain.errors import ConfigError, SchedulerError
from scheduler.simulate.model import Arrival, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
BINS = 480
"""How many values are drawn from left to right; each is the largest of its time."""
LEAST_LATE_SHARE = 0.0005
"""Fewer late tasks are drawn as so many: the axis is logarithmic."""
DOTS_PER_INCH = 120
MOST_OVER_TIME = 4
"""Policies drawn over time; more would hide each other."""
GREY = "#666666"
COLOURS = ("#1b7837", "#d95f02", "#7570b3", "#e7298a")
OURS_STYLES = {
    "backlog:thrifty": ("#7fc97f", "o"),
    "backlog:balanced": ("#1b7837", "o"),
    "backlog:prompt": ("#00441b", "o"),
    "backlog, late_worth_s": ("#1b7837", "x"),
    "backlog:prompt, workers kept": ("#00441b", "^"),
    "threshold": ("#d95f02", "s"),
    "step": ("#e6ab02", "s"),
    "idle-stop": ("#a6761d", "s"),
}
RIVALS_COLOURS = ("#7570b3", "#e7298a", "#1f78b4", "#888888", "#b2182b", "#8c6bb1", "#35978f")


class NoPlots(SchedulerError):
    """matplotlib is not installed here."""


class Point(NamedTuple):
    """One setting of a family: its cost, and the share of tasks that waited too long."""

    family: str
    name: str
    usd: float
    late_share: float
    killed: int = 0


def check(path: Path) -> None:
    """Raise ConfigError for a file of neither kind, NoPlots where nothing can be drawn: before a long simulation."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError([f"{path}: a picture's name ends in {' or '.join(SUFFIXES)}"])
    if not path.absolute().parent.is_dir():
        raise ConfigError([f"{path}: there is no folder {path.absolute().parent}"])
    _figure(1.0)


def over_time(path: Path, outcomes: Sequence[Outcome], arrivals: Sequence[Arrival], *, title: str) -> None:
    """Draw the capacity of each of the first few outcomes, and backlog and waits of all of them, over time.

    They must hold their samples. Raises ConfigError for a path that cannot be written, NoPlots without matplotlib.
    """
    drawn = outcomes[:MOST_OVER_TIME]
    figure = _figure(4.0 + 2.2 * len(drawn))
    *capacities, backlog, waits = figure.subplots(len(drawn) + 2, 1, sharex=True)
    span_s = max(arrivals[-1].at_s if arrivals else 0.0, *(one.duration_s for one in drawn), 1.0)
    unit_s, unit = (86400.0, "days") if span_s > 3 * 86400 else (3600.0, "hours")

    def over(values: Iterable[tuple[float, float]]) -> tuple[list[float], list[float]]:
        times_s, highest = binned(values, span_s=span_s)
        return [at_s / unit_s for at_s in times_s], highest

    for outcome, axes, colour in zip(drawn, capacities, COLOURS, strict=False):
        samples, line = outcome.samples, {"color": colour, "lw": 1.0, "where": "post", "label": outcome.policy}
        axes.fill_between(*over((one.at_s, one.busy) for one in samples), step="post", color=colour, alpha=0.35, lw=0)
        axes.step(*over((one.at_s, one.serving + one.booting) for one in samples), **line)
        late = f"{outcome.late_share:.1%} waited over {outcome.late_after_s:.0f} s"
        axes.set_title(
            f"{outcome.policy}: {outcome.gpu_hours:.1f} GPU-hours, ${outcome.cost_usd:.2f}, {late}",
            fontsize=9,
            loc="left",
        )
        axes.set_ylabel("workers (filled: busy)", fontsize=9)
        backlog.step(*over((one.at_s, one.waiting) for one in samples), **line)
        waited = zip(arrivals, outcome.waits_s, strict=True)
        waits.step(*over((task.at_s, wait_s) for task, wait_s in waited), **line)
    backlog.set_ylabel("tasks that wait")
    waits.axhline(outcomes[0].late_after_s, color=GREY, lw=0.8, ls="--")
    waits.set(ylabel="longest wait (s)", xlabel=unit)
    if len(drawn) > 1:
        waits.legend(loc="upper right", frameon=False, fontsize=8)
    for axes in (*capacities, backlog, waits):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, span_s / unit_s)
        _bare(axes)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def frontier(path: Path, points: Iterable[Point], *, oracle_usd: float, title: str, most_late: float) -> None:
    """Draw cost against lateness, a line for each family, and the line below which nobody comes.

    `most_late` is the share that is accepted; hollow points killed tasks. Raises ConfigError for a path that cannot be
    written, NoPlots without matplotlib.
    """
    figure = _figure(6.5)
    axes = figure.subplots()
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda one: one.usd):
        families.setdefault(point.family, []).append(point)
    colours = itertools.cycle(RIVALS_COLOURS)
    for family, found in sorted(families.items()):
        colour, marker = OURS_STYLES.get(family) or (next(colours), "D")
        usd, lates = [point.usd for point in found], [_shown(point) for point in found]
        kills = any(point.killed for point in found)
        style: dict[str, Any] = {"marker": marker, "mfc": "none"} if kills else {"marker": marker}
        axes.plot(usd, lates, color=colour, lw=1.0, ms=5, label=f"{family} (kills)" if kills else family, **style)
    best = undominated([point for found in families.values() for point in found])
    axes.step([one.usd for one in best], [_shown(one) for one in best], where="post", color="black", lw=0.8, ls=":")
    axes.axvline(oracle_usd, color=GREY, lw=0.8, ls="--")
    axes.axhline(100 * most_late, color=GREY, lw=0.8, ls="--")
    axes.set(xscale="log", yscale="log", xlabel="cost ($)", ylabel="late tasks (%)")
    _plain_numbers(axes)
    words: dict[str, Any] = {"va": "bottom", "fontsize": 8, "color": GREY}
    axes.annotate("oracle-60", (oracle_usd, 100 * LEAST_LATE_SHARE), rotation=90, ha="right", **words)
    axes.annotate("accepted", (axes.get_xlim()[1], 100 * most_late), ha="right", **words)
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    _bare(axes)
    _save(figure, path)


def binned(values: Iterable[tuple[float, float]], *, span_s: float) -> tuple[list[float], list[float]]:
    """Return times and, for each, the largest of the values from there on; empty times have 0."""
    highest = [0.0] * BINS
    for at_s, value in values:
        place = min(BINS - 1, int(at_s / span_s * BINS))
        highest[place] = max(highest[place], value)
    return [number * span_s / BINS for number in range(BINS)], highest


def undominated(points: Iterable[Point]) -> list[Point]:
    """Return the points that no cheaper one is as prompt as, from the cheapest on."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one.usd, one.late_share)):
        if not best or point.late_share < best[-1].late_share:
            best.append(point)
    return best


def _shown(point: Point) -> float:
    return 100 * max(LEAST_LATE_SHARE, point.late_share)


def _figure(height_inches: float) -> Figure:
    try:
        from matplotlib.figure import Figure as Drawing  # noqa: PLC0415  # loaded only where something is drawn
    except ImportError as error:
        raise NoPlots("pictures need matplotlib: poetry install --with local, or pip install matplotlib") from error
    return Drawing(figsize=(10.0, height_inches), dpi=DOTS_PER_INCH, layout="constrained")


def _plain_numbers(axes: Axes) -> None:
    """Label both logarithmic axes at 1, 2, 5, 10, 20 and so on."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415  # as in _figure

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", lw=0.5)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    try:
        kind = path.suffix[1:].lower()
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from error
