"""``sd-scheduler simulate``: what [autoscaling] would have cost, and who would have waited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from scheduler.cli import simulate_options, simulate_replay_view, simulate_view
from scheduler.cli.failure import blaming
from scheduler.cli.live_line import LiveLine
from scheduler.cli.options import json_option
from scheduler.cli.output import writing
from scheduler.cli.session import load_settings
from scheduler.simulate import plot
from scheduler.simulate.compare import Report, compare
from scheduler.simulate.contenders import PRESETS, Contender, contender, everybody, sweep
from scheduler.simulate.demand import Demand, generate
from scheduler.simulate.model import Terms
from scheduler.simulate.replay import read_decisions, replay
from scheduler.simulate.trace import read_trace

USUAL_DEMAND = "sd:days=7"
_file = click.Path(path_type=Path)


@click.command("simulate", short_help="What [autoscaling] would cost for your traffic, and who would wait.")
@click.option("--trace", type=_file, metavar="FILE", help="A CSV of what was asked for, and when.")
@click.option("--demand", metavar="SPEC", help=f"Made-up traffic instead.  [{USUAL_DEMAND}]")
@click.option("--policy", "names", multiple=True, metavar="NAME", help="A policy. Repeatable.  [backlog's presets]")
@click.option("--compare", "is_comparison", is_flag=True, help="All our policies, and what others use.")
@click.option("--sweep", "is_sweep", is_flag=True, help="The same, their parameters varied: cost against lateness.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A key of [autoscaling]. Repeatable.")
@click.option("-c", "--config", type=_file, metavar="FILE", help="A conf.ini whose [autoscaling] is simulated, too.")
@click.option(
    "--most-late",
    type=simulate_options.Number(most=1.0),
    metavar="SHARE",
    default=0.05,
    help="How many late tasks you accept.  [0.05]",
)
@click.option("--plot", "picture", type=_file, metavar="FILE", help="Draw a .png or .svg.")
@click.option("--replay", "decisions", type=_file, metavar="FILE", help="Put policies beside a real fleet's decisions.")
@simulate_options.world_options
@json_option
def simulate_command(
    *,
    trace: Path | None,
    demand: str | None,
    names: tuple[str, ...],
    is_comparison: bool,
    is_sweep: bool,
    pairs: tuple[str, ...],
    config: Path | None,
    most_late: float,
    picture: Path | None,
    decisions: Path | None,
    as_json: bool,
    **world: Any,
) -> None:
    """Run scaling policies over your traffic on a virtual clock, and say what to write into [autoscaling].

    A trace has the columns t and service_s, in seconds, and optionally model. --plot draws the fleet
    over time, or cost against lateness with --compare and --sweep. docs/simulation.md tells how to read the figures.

    \b
    Policies   backlog, backlog:thrifty, backlog:balanced, backlog:prompt, threshold, step, idle-stop, static-N
    Rivals     target-tracking, keda-1, keda-5, keda-1-gentle, buildkite
    Demand     sd:days=7,load=0.39,seed=1            like a public service; load in GPUs
               poisson:days=1,rate=0.1,service=25    independent tasks
               burst:days=2,every=3600,size=200,service=20

    \b
    Examples:
      sd-scheduler simulate --trace requests.csv --most-late 0.02
      sd-scheduler simulate --trace requests.csv -c conf.ini --plot fleet.png
      sd-scheduler simulate --demand sd:days=14,load=2 --compare --json
      sd-scheduler simulate --policy threshold --set scale_out_threshold=2 --min-capacity 1 --boot 60
      sd-scheduler simulate --trace requests.csv --sweep --plot frontier.svg
      sd-scheduler fleet why -n 1000 --json > why.jsonl && sd-scheduler simulate --replay why.jsonl
    """
    wish = _Wish(trace, demand, is_comparison, is_sweep, most_late, picture, as_json)
    wish.refuse_odd_options(is_replay=decisions is not None)
    section = load_settings(config, local=False).autoscaling if config else None
    terms = simulate_options.terms(world, section)
    with blaming("setting"):
        keys = simulate_options.settings(pairs, section, late_after_s=world["late_after"])
    own = [replace(contender(section.policy, terms, keys), name=config.name)] if section and config else []
    with blaming("policy"):
        asked = [*own, *(contender(name, terms, keys) for name in dict.fromkeys(names))]
    if decisions is not None:
        _replay(decisions, asked or _presets(terms, keys), as_json=as_json)
    else:
        _compare(wish, _with_others(asked, terms, keys, wish, is_named=bool(names)), terms)


class _Wish(NamedTuple):
    """What is simulated, and how it is shown."""

    trace: Path | None
    demand: str | None
    is_comparison: bool
    is_sweep: bool
    most_late: float
    picture: Path | None
    as_json: bool

    def refuse_odd_options(self, *, is_replay: bool) -> None:
        """Raise UsageError for what does not go together."""
        if self.trace is not None and self.demand is not None:
            raise click.UsageError("--trace and --demand: give one of them")
        if self.is_comparison and self.is_sweep:
            raise click.UsageError("--compare and --sweep: give one of them, a sweep compares too")
        asked = (self.trace, self.demand, self.picture, self.is_comparison or None, self.is_sweep or None)
        if is_replay and any(one is not None for one in asked):
            raise click.UsageError("--replay stands without --trace, --demand, --compare, --sweep and --plot")


def _replay(decisions: Path, beside: Sequence[Contender], *, as_json: bool) -> None:
    with blaming("replay"):
        kept = read_decisions(decisions)
    replayed = replay(kept, [one.policy for one in beside])
    with writing():
        simulate_replay_view.show(replayed, [one.name for one in beside], as_json=as_json)


def _compare(wish: _Wish, contenders: Sequence[Contender], terms: Terms) -> None:
    trace, picture = wish.trace, wish.picture
    if picture is not None:
        with blaming("picture"):
            plot.check(picture)
    with blaming("trace" if trace else "demand"):
        given = Demand.seen(trace.name, read_trace(trace)) if trace else generate(wish.demand or USUAL_DEMAND)
    line = LiveLine.for_people(as_json=wish.as_json)
    report = compare(contenders, given, terms, most_late=wish.most_late, tell=line.say)
    if picture is not None:
        line.say(f"drawing {picture}")
        with blaming("picture"):
            if wish.is_comparison or wish.is_sweep:
                _draw_frontier(picture, report)
            else:
                _draw_over_time(picture, contenders, given)
    line.clear()
    with writing():
        simulate_view.show(report, picture=picture, is_sweep=wish.is_sweep, as_json=wish.as_json)


def _presets(terms: Terms, keys: Mapping[str, Any]) -> list[Contender]:
    return [contender(name, terms, keys) for name in PRESETS]


def _with_others(
    asked: list[Contender],
    terms: Terms,
    keys: Mapping[str, Any],
    wish: _Wish,
    *,
    is_named: bool,
) -> list[Contender]:
    """Return what was asked for with what belongs beside it, each name once."""
    others = []
    if wish.is_sweep:
        others = sweep(terms, keys)
    elif wish.is_comparison:
        others = everybody(terms, keys)
    elif not is_named:
        others = _presets(terms, keys)
    return list({one.name: one for one in (*asked, *others)}.values())


def _draw_frontier(picture: Path, report: Report) -> None:
    points = [
        plot.Point(
            family=row.family, name=row.policy, month_usd=row.month_usd, late_share=row.late_share, killed=row.killed
        )
        for row in report.rows
        if row.contender is not None
    ]
    patient = report.rows[1]
    oracle = patient.policy, patient.month_usd
    plot.frontier(picture, points, oracle=oracle, title=_title(report.demand), most_late=report.most_late)


def _draw_over_time(picture: Path, contenders: Sequence[Contender], demand: Demand) -> None:
    """Draw the first few; they run once more, for samples of all of them would not fit into memory."""
    few = contenders[: plot.MOST_OVER_TIME]
    outcomes = [contender.run(demand.arrivals, keep_samples=True) for contender in few]
    plot.over_time(picture, outcomes, demand.arrivals, title=_title(demand))


def _title(demand: Demand) -> str:
    return f"{demand.name}: {len(demand.arrivals):,} tasks in {demand.span_s / 86400:.3g} days"
