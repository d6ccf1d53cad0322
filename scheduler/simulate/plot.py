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
"""How many values are drawn from left to right."""
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
    "static": ("#888888", "s"),
}
RIVALS_COLOURS = ("#7570b3", "#e7298a", "#1f78b4", "#b2182b", "#8c6bb1", "#35978f")


class NoPlots(SchedulerError):
    """matplotlib is not installed here."""


class Point(NamedTuple):
    """One setting of a family: its cost in 30 days, and the share of tasks that waited too long."""

    family: str
    name: str
    month_usd: float
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
    """Draw workers, backlog and waits of each of the first few outcomes over time, all by the same scales.

    They must hold their samples. Raises ConfigError for a path that cannot be written, NoPlots without matplotlib.
    """
    drawn = outcomes[:MOST_OVER_TIME]
    figure = _figure(1.0 + 3.6 * len(drawn))
    panels = figure.subplots(3 * len(drawn), 1, sharex=True, height_ratios=[2, 1, 1] * len(drawn), squeeze=False)[:, 0]
    span_s = max(arrivals[-1].at_s if arrivals else 0.0, *(one.duration_s for one in drawn), 1.0)
    unit_s, unit = (86400.0, "days") if span_s > 3 * 86400 else (3600.0, "hours")
    for number, (outcome, colour) in enumerate(zip(drawn, COLOURS, strict=False)):
        _draw_one(list(panels[3 * number : 3 * number + 3]), outcome, arrivals, colour, span_s=span_s, unit_s=unit_s)
    for place in range(3):
        _same_scale(panels[place::3])
    for axes in panels:
        axes.set_xlim(0, span_s / unit_s)
        _bare(axes)
    panels[-1].set_xlabel(unit)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _draw_one(
    panels: Sequence[Axes], outcome: Outcome, arrivals: Sequence[Arrival], colour: str, *, span_s: float, unit_s: float
) -> None:
    """Draw one outcome's workers, backlog and waits, one below the other."""
    capacity, backlog, waits = panels
    line: dict[str, Any] = {"color": colour, "lw": 1.0, "where": "post"}

    def over(found: tuple[list[float], list[float]]) -> tuple[list[float], list[float]]:
        return [at_s / unit_s for at_s in found[0]], found[1]

    samples, waited = outcome.samples, zip(arrivals, outcome.waits_s, strict=True)
    busy = averaged(((one.at_s, one.busy) for one in samples), span_s=span_s)
    capacity.fill_between(*over(busy), step="post", color=colour, alpha=0.35, lw=0)
    capacity.step(*over(averaged(((one.at_s, one.serving + one.booting) for one in samples), span_s=span_s)), **line)
    backlog.step(*over(binned(((one.at_s, one.waiting) for one in samples), span_s=span_s)), **line)
    waits.step(*over(binned(((task.at_s, wait_s) for task, wait_s in waited), span_s=span_s)), **line)
    waits.axhline(outcome.late_after_s, color=GREY, lw=0.8, ls="--")
    late = f"{outcome.late_share:.1%} waited over {outcome.late_after_s:.0f} s"
    words = f"{outcome.policy}: {outcome.gpu_hours:.1f} GPU-hours, ${outcome.cost_usd:.2f}, {late}"
    capacity.set_title(words, fontsize=9, loc="left")
    capacity.set_ylabel("workers, mean\n(filled: busy)", fontsize=8)
    backlog.set_ylabel("most that\nwait", fontsize=8)
    waits.set_ylabel("longest\nwait (s)", fontsize=8)


def _same_scale(panels: Iterable[Axes]) -> None:
    """Give them the scale of the highest: what looks twice as high is."""
    alike = list(panels)
    top = max(axes.get_ylim()[1] for axes in alike)
    for axes in alike:
        axes.set_ylim(0, top)


def frontier(path: Path, points: Iterable[Point], *, oracle: tuple[str, float], title: str, most_late: float) -> None:
    """Draw cost against lateness, a line for each family, and the line below which nobody comes.

    `oracle` is the name and the cost in 30 days of the schedule that lets nobody be late, `most_late` is the share that
    is accepted; hollow points killed tasks. Raises ConfigError for a path that cannot be written, NoPlots without
    matplotlib.
    """
    figure = _figure(6.5)
    axes = figure.subplots()
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda one: one.month_usd):
        families.setdefault(point.family, []).append(point)
    colours = itertools.cycle(RIVALS_COLOURS)
    for family, found in sorted(families.items(), key=lambda pair: _place(pair[0])):
        colour, marker = OURS_STYLES.get(family) or (next(colours), "D")
        usd, lates = [point.month_usd for point in found], [_shown(point) for point in found]
        kills = any(point.killed for point in found)
        style: dict[str, Any] = {"marker": marker, "mfc": "none"} if kills else {"marker": marker}
        axes.plot(usd, lates, color=colour, lw=1.0, ms=5, label=f"{family} (kills)" if kills else family, **style)
    best = undominated([point for found in families.values() for point in found])
    axes.step(
        [one.month_usd for one in best], [_shown(one) for one in best], where="post", color="black", lw=0.8, ls=":"
    )
    name, oracle_usd = oracle
    axes.axvline(oracle_usd, color=GREY, lw=0.8, ls="--")
    axes.axhline(100 * most_late, color=GREY, lw=0.8, ls="--")
    axes.set(xscale="log", yscale="log", xlabel="cost ($ a month, logarithmic)", ylabel="late tasks (%, logarithmic)")
    _plain_numbers(axes)
    words: dict[str, Any] = {"va": "bottom", "fontsize": 8, "color": GREY}
    axes.annotate(name, (oracle_usd, axes.get_ylim()[0]), rotation=90, ha="right", **words)
    axes.annotate("accepted", (axes.get_xlim()[1], 100 * most_late), ha="right", **words)
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    _bare(axes)
    _save(figure, path)


def averaged(values: Iterable[tuple[float, float]], *, span_s: float) -> tuple[list[float], list[float]]:
    """Return times and, for each, the mean of the values from there on; empty times have the mean before them."""
    sums, counts = [0.0] * BINS, [0] * BINS
    for at_s, value in values:
        place = min(BINS - 1, int(at_s / span_s * BINS))
        sums[place] += value
        counts[place] += 1
    means: list[float] = []
    for total, count in zip(sums, counts, strict=True):
        means.append(total / count if count else means[-1] if means else 0.0)
    return [number * span_s / BINS for number in range(BINS)], means


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
    for point in sorted(points, key=lambda one: (one.month_usd, one.late_share)):
        if not best or point.late_share < best[-1].late_share:
            best.append(point)
    return best


def _place(family: str) -> tuple[int, str]:
    """Return what sorts ours first, in the order of `OURS_STYLES`, then the others by name."""
    ours = list(OURS_STYLES)
    return (ours.index(family), "") if family in OURS_STYLES else (len(ours), family)


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
