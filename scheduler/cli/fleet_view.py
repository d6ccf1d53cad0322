"""A look at the fleet in words: lines for a pipe, a table for a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from scheduler.autoscale.report import FleetReport

if TYPE_CHECKING:
    from rich.console import RenderableType


def spoken(seconds: float) -> str:
    """Return a time as people say it, such as 40 s, 59 min, 5.0 h or 2.0 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


def _head(found: FleetReport) -> str:
    wanted = "-" if found.wanted is None else found.wanted
    return (
        f"{found.fleet}: {found.condition}, target {found.target}, members {found.members}, wanted {wanted}, "
        f"queue {found.visible} visible {found.in_flight} in flight"
    )


def plain(found: FleetReport) -> list[str]:
    """Return a look in lines, the workers last."""
    lines = [_head(found)]
    lines += [f"  because {reason}" for reason in found.reasons]
    lines += [f"  {words}" for words in _held(found)]
    lines += [f"  trouble: {found.trouble}"] if found.trouble else []
    lines += [
        f"  {line.instance_id}  {line.state}  running {line.running}  waiting {line.waiting}  finished {line.finished}  "
        f"idle {spoken(line.idle_s)}{'  ' + line.note if line.note else ''}"
        for line in found.workers
    ]
    return lines


def fleet_table(found: FleetReport) -> RenderableType:
    """Return a report as a person sees it at a terminal."""
    from rich.console import Group  # noqa: PLC0415  # rich is loaded for a terminal only
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    head = Table.grid(padding=(0, 2))
    wanted = "-" if found.wanted is None else str(found.wanted)
    head.add_row("fleet", f"{found.fleet} ({found.condition})")
    head.add_row("capacity", f"target {found.target}, members {found.members}, wanted {wanted} ({found.policy or '-'})")
    head.add_row("queue", f"{found.visible} visible, {found.in_flight} in flight")
    for reason in found.reasons:
        head.add_row("because", reason)
    for words in _held(found):
        head.add_row("", Text(words, style="yellow"))
    if found.trouble:
        head.add_row("trouble", Text(found.trouble, style="bold red"))
    ago = "" if found.decided_s_ago is None else f", {spoken(found.decided_s_ago)} ago"
    head.add_row("leader", f"{found.leader or '-'}{ago}")
    styles = {
        "active": "green",
        "booting": "cyan",
        "preparing": "cyan",
        "drain": "yellow",
        "drained": "yellow",
        "term": "red",
    }
    table = Table(
        "worker", "state", "running", "waiting", "finished", "idle", "note", caption="workers report every 10 s"
    )
    for line in found.workers:
        table.add_row(
            line.instance_id,
            Text(line.state, style=styles.get(line.state, "")),
            str(line.running),
            str(line.waiting),
            str(line.finished),
            spoken(line.idle_s),
            Text(line.note, overflow="fold"),
        )
    return Group(head, table)


def one_line(found: FleetReport) -> str:
    """Return what matters of a look in one line, for a watch in a pipe."""
    states = Counter(line.state for line in found.workers)
    workers = " ".join(f"{state} {count}" for state, count in sorted(states.items())) or "none"
    parts = [_head(found), f"workers: {workers}", *_held(found), *found.reasons[:1]]
    return "; ".join(parts)


def _held(found: FleetReport) -> list[str]:
    """Return why nothing is done, once: for a pause who asked for it, why, and how long it lasts."""
    if not found.paused_for_s:
        return [f"held: {found.hold}"] if found.hold else []
    why = f": {found.paused_why}" if found.paused_why else ""
    return [f"paused by {found.paused_by} for {spoken(found.paused_for_s)} more{why}"]
