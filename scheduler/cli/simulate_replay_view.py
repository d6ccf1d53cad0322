"""What ``sd-scheduler simulate --replay`` shows: decisions of a real fleet,
and what other policies would have wanted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from scheduler.autoscale.snapshot import Decision
from scheduler.cli.simulate_view import columns
from scheduler.simulate.replay import Kept, Replayed


def show(replayed: Sequence[Replayed], names: Sequence[str], *, as_json: bool) -> None:
    """Print what was decided, and what each of the named policies would have decided."""
    if as_json:
        click.echo(json.dumps(_replay_figures(replayed, names)))
        return
    rows = [("at", "waiting", "serving", "decided", *names)]
    rows += [(_at(one.kept), *_seen(one.kept), _decided(one.kept), *map(_wanted, one.wanted)) for one in replayed]
    if sys.stdout.isatty():
        _replay_table(rows, replayed)
    else:
        for row in columns(rows):
            click.echo(row)
    for number, name in enumerate(names):
        click.echo(_summary(replayed, number, name))


def _replay_table(rows: Sequence[tuple[str, ...]], replayed: Sequence[Replayed]) -> None:
    from rich.console import Console  # noqa: PLC0415  # rich is loaded for a terminal only
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    table = Table(*rows[0])
    for row, one in zip(rows[1:], replayed, strict=True):
        own = len(row) - len(one.wanted)
        cells = [Text(cell) for cell in row]
        for cell, decision in zip(cells[own:], one.wanted, strict=True):
            if decision is not None and decision.capacity != one.kept.capacity:
                cell.stylize("bold yellow")
            if decision is not None:
                cell.append(f"\n{decision.reasons[0]}" if decision.reasons else "", style="dim")
        why = one.kept.hold or (one.kept.reasons[0] if one.kept.reasons else "")
        cells[own - 1].append(f"\n{why}" if why else "", style="dim")
        table.add_row(*cells)
    Console().print(table)


def _at(kept: Kept) -> str:
    return datetime.fromtimestamp(kept.at_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _seen(kept: Kept) -> tuple[str, str]:
    snapshot = kept.snapshot
    return ("?", "?") if snapshot is None else (str(snapshot.waiting), str(snapshot.serving))


def _decided(kept: Kept) -> str:
    return "-" if kept.capacity is None else f"{kept.capacity} ({kept.policy})"


def _wanted(decision: Decision | None) -> str:
    return "-" if decision is None else str(decision.capacity)


def _compared(replayed: Sequence[Replayed], number: int) -> list[tuple[int, int]]:
    """Return what was decided and what the policy wanted, where both are known."""
    pairs = [(one.kept.capacity, one.wanted[number]) for one in replayed]
    return [(decided, wanted.capacity) for decided, wanted in pairs if decided is not None and wanted is not None]


def _summary(replayed: Sequence[Replayed], number: int, name: str) -> str:
    pairs = _compared(replayed, number)
    if not pairs:
        return f"{name}: no decision here has what it needs"
    differ = sum(decided != wanted for decided, wanted in pairs)
    mean, own = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return (
        f"{name}: other than decided in {differ} of {len(pairs)}, {own:.1f} workers wanted on average, not {mean:.1f}"
    )


def _replay_figures(replayed: Sequence[Replayed], names: Sequence[str]) -> dict[str, Any]:
    decisions = [
        {
            "at_s": one.kept.at_s,
            "decided": {
                "capacity": one.kept.capacity,
                "policy": one.kept.policy,
                "reasons": one.kept.reasons,
                "hold": one.kept.hold,
            },
            "others": {
                name: decision and {"capacity": decision.capacity, "reasons": decision.reasons}
                for name, decision in zip(names, one.wanted, strict=True)
            },
        }
        for one in replayed
    ]
    return {
        "decisions": decisions,
        "policies": [_one_policy(replayed, number, name) for number, name in enumerate(names)],
    }


def _one_policy(replayed: Sequence[Replayed], number: int, name: str) -> dict[str, Any]:
    pairs = _compared(replayed, number)
    return {
        "policy": name,
        "compared": len(pairs),
        "differ": sum(decided != wanted for decided, wanted in pairs),
        "mean_decided": round(sum(decided for decided, _ in pairs) / len(pairs), 3) if pairs else None,
        "mean_wanted": round(sum(wanted for _, wanted in pairs) / len(pairs), 3) if pairs else None,
    }
