"""``sd-scheduler autoscale``: the fleet's loop without a worker, for a small host, a cron job or a Lambda."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import click

from scheduler.autoscale.book import TICK_S, Book
from scheduler.autoscale.leader import Leader, Outcome
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.session import load_fleet_settings
from scheduler.domain.errors import Unavailable
from scheduler.fleet import FleetParts, make_leader, open_fleet
from scheduler.observe import logging


@click.command("autoscale", short_help="Keep the fleet as large as the queue needs, without a worker.")
@config_option
@local_option
@click.option("--once", is_flag=True, help="Look, decide, act, and end: for a cron job, once a minute.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@json_option
def autoscale_command(config: Path | None, local: bool, once: bool, dry_run: bool, as_json: bool) -> None:
    """Run the loop that keeps the fleet as large as the queue needs; without --once, until a signal.

    Workers run the same loop; this is for when there are none, as with min_capacity = 0. Any number of them may run.

    \b
    Examples:
      sd-scheduler autoscale --dry-run --once
      * * * * * sd-scheduler autoscale --once -c /etc/sd-scheduler/conf.ini
    """
    settings = load_fleet_settings(config, local=local)
    logging.configure(secrets=settings.secrets, stream=sys.stderr)
    host = f"autoscale@{socket.gethostname()}"
    parts = open_fleet(settings, host=host, publishes=not dry_run)
    leader = make_leader(parts, name=host, looks_once=once, acts=not dry_run)
    if once or dry_run:
        outcome = _tick(parts, leader)
        _tell(outcome, as_json=as_json, unpublished=parts.watch.unpublished)
        return
    sys.exit(lead_until_told(parts, leader, as_json=as_json))


def lead_until_told(parts: FleetParts, leader: Leader, *, as_json: bool) -> int:
    """Contend for the lead until SIGTERM or SIGINT, give it up, and return the exit code."""
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: signals.put(number))
    told = keep_leading(parts, leader, signals, as_json=as_json)
    with contextlib.suppress(Unavailable):  # the lead runs out by itself then
        leader.resign()
    return 130 if told == signal.SIGINT else 0


def keep_leading(parts: FleetParts, leader: Leader, signals: SimpleQueue[int], *, as_json: bool) -> int:
    """Tick until a signal, and return it; what AWS refuses is logged by the leader or here, and tried again."""
    while True:
        pause_s = TICK_S
        try:
            outcome = _tick(parts, leader)
            _tell(outcome, as_json=as_json)
            pause_s = outcome.next_s
        except Unavailable as error:
            click.echo(f"error: {error.message}", err=True)
        with contextlib.suppress(Empty):
            return signals.get(timeout=pause_s)


def _tick(parts: FleetParts, leader: Leader) -> Outcome:
    """Look once; an edit here is judged and published though another leads. Raises Unavailable."""
    outcome = leader.tick()
    if not outcome.leads:
        parts.watch.followed()
    return outcome


def _tell(outcome: Outcome, *, as_json: bool, unpublished: Sequence[str] = ()) -> None:
    book, plan = outcome.book, outcome.plan
    if as_json:
        writes = plan.writes if plan else ()
        done = outcome.to_json() | {
            "writes": [{"instance_id": change.instance_id, **_shown(change.sets)} for change in writes],
            "ends": [end.instance_id for end in plan.ends] if plan else [],
            "would_publish": list(unpublished),
        }
        click.echo(json.dumps(done))
    elif not outcome.leads:
        click.echo(_why_not(book))
    elif book is not None and plan is not None:
        wanted = "nothing decided" if book.capacity is None else f"wanted {book.capacity}"
        click.echo("; ".join([wanted, *book.reasons]))
        if book.hold:
            click.echo(f"  held: {book.hold}")
        for write in plan.writes:
            click.echo(f"  {write.instance_id}: {_shown(write.sets).get('state', 'recalled')}")
        if plan.target is not None:
            click.echo(f"  target: {plan.target}")
        for end in plan.ends:
            click.echo(f"  end: {end.instance_id}")
        for change in unpublished:
            click.echo(f"  would publish: {change}")


def _why_not(book: Book | None) -> str:
    """Say who keeps this one from leading; with --once that may be the same command a moment ago."""
    if book is None:
        return "somebody else began to lead just now; nothing to do here"
    return (
        f"{book.leader} decided {max(0.0, time.time() - book.written_s):.0f} s ago and leads still; nothing to do here"
    )


def _shown(sets: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(sets[name]) for name in ("state", "why", "recall") if name in sets}
