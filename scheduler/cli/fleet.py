"""``sd-scheduler fleet``: see the fleet, ask why it is as it is, drain a worker, pause the loop."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from scheduler.autoscale import protocol
from scheduler.autoscale.book import LEASE_S, TICK_S, Book, Pause
from scheduler.autoscale.fleets.port import Condition, Life
from scheduler.autoscale.protocol import State
from scheduler.autoscale.report import FleetReport, explained
from scheduler.cli.failure import FAILED
from scheduler.cli.fleet_view import fleet_table, one_line, plain, spoken
from scheduler.cli.options import config_option, json_option, local_option
from scheduler.cli.session import load_fleet_settings
from scheduler.domain.errors import SchedulerError
from scheduler.fleet import FleetParts, look, open_fleet
from scheduler.observe import logging

WATCH_S = 2.0
SPAN = re.compile(r"(\d+)([smhd])")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group("fleet")
def fleet_group() -> None:
    """See the fleet and steer it.

    \b
    Examples:
      sd-scheduler fleet show
      sd-scheduler fleet why
    """


@fleet_group.command("show")
@config_option
@local_option
@json_option
def show_command(config: Path | None, local: bool, as_json: bool) -> None:
    """Show target, members, queue and every worker.

    \b
    Exits with
      0  the fleet is there
      1  it has ended, or there is none of this name

    \b
    Example:
      sd-scheduler fleet show --json
    """
    found = look(_open(config, local=local))
    if as_json:
        click.echo(json.dumps(found.to_json()))
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  # rich is loaded for a terminal only

        Console().print(fleet_table(found))
    else:
        click.echo("\n".join(plain(found)))
    sys.exit(FAILED if found.condition == Condition.ENDED else 0)


@fleet_group.command("watch")
@config_option
@local_option
@json_option
def watch_command(config: Path | None, local: bool, as_json: bool) -> None:
    """Show the fleet as it changes, until Ctrl-C; in a pipe, a line for each change.

    \b
    Example:
      sd-scheduler fleet watch
    """
    parts = _open(config, local=local)
    if as_json or not sys.stdout.isatty():
        _watch_in_a_pipe(parts, as_json=as_json)
        return
    from rich.live import Live  # noqa: PLC0415  # rich is loaded for a terminal only

    with Live(fleet_table(look(parts)), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(WATCH_S)
            live.update(fleet_table(look(parts)), refresh=True)


@fleet_group.command("why")
@config_option
@local_option
@click.option("-n", "--last", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many decisions.")
@json_option
def why_command(config: Path | None, local: bool, last: int, as_json: bool) -> None:
    """Show the last decisions with their inputs and reasons, newest first; with --json, oldest first, one a line.

    \b
    Examples:
      sd-scheduler fleet why -n 3
      sd-scheduler fleet why -n 1000 --json > decisions.jsonl && sd-scheduler simulate --replay decisions.jsonl
    """
    kept = _open(config, local=local).state.history(last)
    if as_json:
        for book in reversed(kept):
            click.echo(json.dumps(_decision(book)))
        return
    if not kept:
        click.echo("nothing was decided yet: no daemon with [autoscaling] enabled has led this fleet")
    for book in kept:
        first, *rest = explained(book)
        click.echo("\n".join([f"{_at(book.written_s)}  {first}", *rest]))


@fleet_group.command("drain")
@config_option
@local_option
@click.argument("instance_id")
@click.option("--replace", "is_replaced", is_flag=True, help="Let the fleet bring another in its place.")
@json_option
def drain_command(config: Path | None, local: bool, instance_id: str, is_replaced: bool, as_json: bool) -> None:
    """Ask one worker to go: it finishes what it has, receives nothing more, and ends itself.

    Without --replace the fleet's target falls by one; a policy that wants more raises it again.

    \b
    Example:
      sd-scheduler fleet drain i-0123456789abcdef0 --replace
    """
    parts = _open(config, local=local)
    state, worker = parts.state, parts.state.worker(instance_id)
    if worker is None or worker.state is State.GONE:
        raise SchedulerError(_why_no_worker(parts, instance_id))
    if worker.state is State.ACTIVE:
        change = protocol.drain(worker, why=f"asked for by {_me()}", replace=is_replaced, firm=True, now_s=time.time())
        worker = state.change(change).worker or worker
    if as_json:
        click.echo(json.dumps({"instance_id": instance_id, "state": worker.state.value, "why": worker.why}))
    else:
        click.echo(f"{instance_id}: {worker.state.value}" + (f" ({worker.why})" if worker.why else ""))


@fleet_group.command("pause")
@config_option
@local_option
@click.option("--for", "span", default="1h", show_default=True, help="How long, such as 90s, 30m, 1h, 2d.")
@click.option("--why", default="", help="For those who wonder later.")
@json_option
def pause_command(config: Path | None, local: bool, span: str, why: str, as_json: bool) -> None:
    """Leave the fleet as it is for a while: nothing is added, nobody is asked to go.

    What is on its way out already goes on, interruptions are handled, and dead workers are still written off.

    \b
    Example:
      sd-scheduler fleet pause --for 30m --why "load test"
    """
    pause = Pause(until_s=time.time() + _span_s(span), by=_me(), why=why)
    _open(config, local=local).state.set_pause(pause)
    if as_json:
        click.echo(json.dumps(asdict(pause)))
    else:
        click.echo(f"paused until {_at(pause.until_s)}; sd-scheduler fleet resume ends it sooner")


@fleet_group.command("resume")
@config_option
@local_option
@json_option
def resume_command(config: Path | None, local: bool, as_json: bool) -> None:
    """End a pause, and let workers be added again after several in a row never worked.

    \b
    Example:
      sd-scheduler fleet resume
    """
    state, now_s = _open(config, local=local).state, time.time()
    before, book = state.pause(), state.book()
    was_paused = before is not None and now_s < before.until_s
    state.set_pause(Pause(until_s=now_s, by=_me()))
    is_led = book is not None and book.leader != "" and now_s - book.written_s < LEASE_S
    if as_json:
        click.echo(json.dumps({"was_paused": was_paused, "is_led": is_led}))
        return
    said = "resumed" if was_paused else "no pause was on; a stop after workers that never worked is lifted"
    when = f"within {TICK_S:.0f} s" if is_led else "which is whoever looks next: nobody has led just now"
    click.echo(f"{said}: the next tick decides, {when}")


def _open(config: Path | None, *, local: bool) -> FleetParts:
    settings = load_fleet_settings(config, local=local)
    logging.configure(secrets=settings.secrets, stream=sys.stderr)
    return open_fleet(settings, host=_me())


def _me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _why_no_worker(parts: FleetParts, instance_id: str) -> str:
    members = {member.instance_id: member for member in parts.fleet.describe().members}
    member = members.get(instance_id)
    if member is not None and member.life is not Life.ENDING:
        ago = spoken(time.time() - member.launched_s)
        return f"{instance_id} was launched {ago} ago and has not reported yet: ask again once fleet show says active"
    return f"{instance_id} is no worker of this fleet: see sd-scheduler fleet show"


def _watch_in_a_pipe(parts: FleetParts, *, as_json: bool) -> None:
    shown: Callable[[FleetReport], str] = (lambda found: json.dumps(found.to_json())) if as_json else one_line
    last: tuple[object, ...] | None = None
    while True:
        found = look(parts)
        states = [line.state for line in found.workers]
        facts = (found.target, found.members, found.wanted, found.hold, states)
        if facts != last:
            click.echo(shown(found))
            last = facts
        time.sleep(WATCH_S)


def _decision(book: Book) -> dict[str, object]:
    return {
        "at_s": book.written_s,
        "leader": book.leader,
        "snapshot": None if book.snapshot is None else asdict(book.snapshot),
        "decision": {"capacity": book.capacity, "policy": book.policy, "reasons": book.reasons, "hold": book.hold},
    }


def _at(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _span_s(text: str) -> float:
    matched = SPAN.fullmatch(text.strip())
    if matched is None:
        raise click.BadParameter(f"{text!r} is no time; write such as 90s, 30m, 1h or 2d", param_hint="--for")
    span_s = float(matched[1]) * UNITS_S[matched[2]]
    if span_s == 0:
        raise click.BadParameter(
            "must be longer than nothing; sd-scheduler fleet resume ends a pause", param_hint="--for"
        )
    return span_s
