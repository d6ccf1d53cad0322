"""The fleet's demo: a burst makes it grow from nothing, idleness makes it shrink again, and nothing is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scheduler.autoscale.report import FleetReport
from scheduler.config import load
from scheduler.domain.claiming import FINAL
from scheduler.fleet import FleetParts, look, make_leader, open_fleet
from scheduler.session import open_session
from scheduler.submission import submit

STEPS = 40
LIMIT_S = 420.0
LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What the demo shows: the fleet, and how many of its tasks have come to which end."""

    fleet: FleetReport
    done: int
    sent: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of the demo."""

    completed: int
    sent: int
    runs: int
    peak: int
    members_left: int
    lasted_s: float

    @property
    def is_as_meant(self) -> bool:
        """Whether every task was done in one run, by more than one worker, and the fleet is gone again."""
        return self.completed == self.sent == self.runs and self.peak > 1 and self.members_left == 0


def run(config: Path, *, tasks: int, show: Callable[[Moment], None]) -> Verdict:
    """Send the burst, keep the fleet, and watch until it is gone again. Raises Unavailable."""
    settings = load(config, os.environ)
    session, parts = open_session(settings), open_fleet(settings, host="demo")
    ids = []
    for number in range(tasks):
        payload = {"prompt": f"wave {number + 1}", "steps": STEPS, "width": 256, "height": 256, "seed": number}
        message = {"task_id": f"burst-{os.getpid()}-{number + 1}", "task_type": "txt2img", "payload": payload}
        ids.append(submit(message, records=session.records, send=session.send).task_id)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(parts, stop), daemon=True)
    keeper.start()
    begun_s, peak = time.monotonic(), 0
    while True:
        records = session.records.read(ids)
        done = sum(record.get("status") in FINAL for record in records.values())
        fleet = look(parts)
        peak = max(peak, fleet.members)
        elapsed_s = time.monotonic() - begun_s
        show(Moment(fleet=fleet, done=done, sent=tasks, elapsed_s=elapsed_s))
        is_over = done == tasks and fleet.members == 0
        if is_over or elapsed_s > LIMIT_S:
            break
        stop.wait(LOOK_S)
    stop.set()
    keeper.join()
    return Verdict(
        completed=sum(record.get("status") == "completed" for record in records.values()),
        sent=tasks,
        runs=sum(int(record.get("runs", 0)) for record in records.values()),
        peak=peak,
        members_left=fleet.members,
        lasted_s=elapsed_s,
    )


def _keep(parts: FleetParts, stop: threading.Event) -> None:
    """Do what `sd-scheduler autoscale` does: with no worker left, nobody else would begin."""
    leader = make_leader(parts, name="demo")
    while True:
        if stop.wait(leader.tick().next_s):
            return
