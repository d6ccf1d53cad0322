"""What ``sd-scheduler simulate`` shows: a table at a terminal, lines in a pipe, one JSON object for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from scheduler.autoscale.policies.backlog import Backlog
from scheduler.simulate.advice import Advice, Larger
from scheduler.simulate.compare import Report
from scheduler.simulate.contenders import SWEPT
from scheduler.simulate.row import DAY_S, Row

HEADS = (
    "policy",
    "GPU-h",
    "x oracle",
    "$/month",
    "busy",
    "p50 s",
    "p95 s",
    "p99 s",
    "late",
    "killed",
    "actions",
    "peak",
)
PRICE_OF = "what your instance type costs"
LEAST_NEEDED = ("actions", "p99 s", "busy", "p50 s", "peak")
"""What a narrow terminal goes without, in this order."""


def show(report: Report, *, picture: Path | None, is_sweep: bool, as_json: bool) -> None:
    """Print what came of a comparison."""
    if as_json:
        click.echo(json.dumps({**report.figures(), "plot": str(picture) if picture else None}))
        return
    cells = [_cells(row) for row in report.rows]
    click.echo(_about(report) + "\n")
    if sys.stdout.isatty():
        _table(report, cells)
    else:
        click.echo("\n".join(columns([HEADS, *cells])))
    click.echo("\n" + "\n".join(_advice(report, is_sweep=is_sweep)))
    if picture is not None:
        click.echo(f"\n{picture} is drawn.")


def _about(report: Report) -> str:
    demand, world = report.demand, report.world
    return (
        f"{demand.name}: {len(demand.arrivals):,} tasks in {demand.span_s / DAY_S:.3g} days; "
        f"{demand.mean_load:.2f} GPUs of work on average, {demand.busiest_hour_load:.1f} in the busiest hour\n"
        f"assumed: ${world.price_usd_per_hour:g} an hour (--price; {PRICE_OF}), a boot of {world.boot_s:g} s (--boot) "
        f"after {world.launch_s:g} s (--launch), {world.reclaims_per_hour:g} reclaims a worker and hour (--reclaims)"
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.policy,
        f"{row.gpu_hours:.1f}",
        f"{row.x_oracle:.2f}",
        f"{row.month_usd:.2f}",
        f"{row.busy_share:.0%}",
        f"{row.wait_p50_s:.0f}",
        f"{row.wait_p95_s:.0f}",
        f"{row.wait_p99_s:.0f}",
        f"{row.late_share:.1%}",
        str(row.killed),
        str(row.actions),
        str(row.peak),
    )


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    ]


def _table(report: Report, cells: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # rich is loaded for a terminal only
    from rich.table import Table  # noqa: PLC0415  # as above

    console = Console()
    rows = [HEADS, *cells]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    left_out: list[int] = []
    for head in LEAST_NEEDED:
        if sum(widths) - sum(widths[place] for place in left_out) > console.width:
            left_out.append(HEADS.index(head))
    shown = [place for place in range(len(HEADS)) if place not in left_out]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place in shown:
        table.add_column(HEADS[place], justify="right" if place else "left", no_wrap=True)
    chosen = report.advice.row if report.advice else None
    for row, texts in zip(report.rows, cells, strict=True):
        style = "dim" if row.contender is None else "bold green" if chosen and row.policy == chosen.policy else ""
        table.add_row(*(texts[place] for place in shown), style=style)
    console.print(table)


def _advice(report: Report, *, is_sweep: bool) -> list[str]:
    advice, wish = report.advice, _share(report.most_late)
    if advice is None:
        return ["None of these can be had from conf.ini, so nothing is recommended."]
    if advice.is_met:
        head = f"Cheapest here with at most {wish} late is {advice.row.policy}:"
    else:
        head = f"Nothing here that conf.ini can say keeps at most {wish} late. The fewest has {advice.row.policy}:"
    settings = [f"{key} = {value}".rstrip() for key, value in advice.settings.items()]
    return [
        head,
        "",
        "[autoscaling]",
        *settings,
        "",
        *_price(report, advice),
        *_beyond(report, advice, is_sweep=is_sweep),
    ]


def _price(report: Report, advice: Advice) -> list[str]:
    row, late_s = advice.row, report.world.late_after_s
    price = (
        f"${row.month_usd:.2f} a month ({row.gpu_hours:.1f} GPU-hours in these {report.demand.span_s / DAY_S:.3g} days); "
        f"{row.late_share:.1%} wait over {late_s:g} s, 95 % no more than {row.wait_p95_s:.0f} s."
    )
    lines = [price]
    if report.demand.span_s < DAY_S:
        lines.append("A month is reckoned from less than a day: give a longer trace for a price to rely on.")
    if row.unserved:
        lines.append(f"{row.unserved:,} tasks were not done a day after the last came: the fleet is too small.")
    if int(advice.settings["max_capacity"]) < advice.allowed:
        lines.append(f"{advice.allowed} workers were allowed, {row.peak} used: max_capacity is those and a reserve.")
    return lines


def _beyond(report: Report, advice: Advice, *, is_sweep: bool) -> list[str]:
    """Say what was not simulated, or cannot be written, and would do better."""
    lines = _with_more(advice.allowed, advice.larger) if advice.larger else []
    late_s, contender = report.world.late_after_s, advice.row.contender
    if (
        not is_sweep
        and contender
        and isinstance(contender.policy, Backlog)
        and contender.policy.target_wait_s != late_s
    ):
        aim = f"It aims at waits of {contender.policy.target_wait_s:g} s, and late here is what waits over {late_s:g} s"
        lines.append(f"{aim}: --set target_wait_s={late_s:g} brings both together.")
    if better := advice.better:
        killed = f", with {better.killed:,} runs killed" if better.killed else ""
        what = "does it for less" if advice.is_met else "does better"
        lines.append(
            f"{better.policy}, which conf.ini cannot say, {what}: "
            f"{better.late_share:.1%} late, ${better.month_usd:.2f} a month{killed}."
        )
    if not is_sweep:
        lines.append(f"{', '.join(SWEPT)} were left as they are: --sweep varies them, too.")
    return lines


def _with_more(allowed: int, larger: Larger) -> list[str]:
    then = f"{_share(larger.row.late_share)} late, ${larger.row.month_usd:.2f} a month"
    if larger.is_worth_it:
        return [f"All {allowed} workers allowed were in use. With --max-capacity {larger.max_capacity}: {then}."]
    said = f"All {allowed} workers allowed were in use, but {larger.max_capacity} would hardly help ({then}): the work comes"
    return [f"{said} faster than workers boot. A faster boot (--boot) or more kept ready (--min-capacity) may."]


def _share(share: float) -> str:
    return f"{share:.1%}".replace(".0%", "%")
