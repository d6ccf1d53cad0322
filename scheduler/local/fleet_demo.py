"""The fleet's demo: a burst makes it grow from nothing, idleness makes it shrink again, and nothing is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from scheduler.autoscale.book import TICK_S
from scheduler.autoscale.report import FleetReport
from scheduler.config import load
from scheduler.domain.claiming import FINAL
from scheduler.domain.errors import Unavailable
from scheduler.fleet import FleetParts, look, make_leader, open_fleet
from scheduler.session import open_session
from scheduler.submission import submit

log = structlog.get_logger()
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
    leader_died: str = ""
    """What ended the demo's own leader before its time; empty when nothing did."""

    @property
    def is_as_meant(self) -> bool:
        """Whether every task was done in one run, by more than one worker,
        the fleet is gone again, and its leader led.
        """
        return (
            not self.leader_died
            and self.completed == self.sent == self.runs
            and self.peak > 1
            and self.members_left == 0
        )


def run(config: Path, *, tasks: int, show: Callable[[Moment], None]) -> Verdict:
    """Send the burst, keep the fleet, and watch until it is gone again. Raises Unavailable."""
    settings = load(config, os.environ)
    session, parts = open_session(settings), open_fleet(settings, host="demo")
    ids = []
    for number in range(tasks):
        payload = {"prompt": f"wave {number + 1}", "steps": STEPS, "width": 256, "height": 256, "seed": number}
        message = {"task_id": f"burst-{os.getpid()}-{number + 1}", "task_type": "txt2img", "payload": payload}
        ids.append(submit(message, records=session.records, send=session.send).task_id)
    keeper = Keeper(parts)
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
        time.sleep(LOOK_S)
    keeper.stop()
    return Verdict(
        completed=sum(record.get("status") == "completed" for record in records.values()),
        sent=tasks,
        runs=sum(int(record.get("runs", 0)) for record in records.values()),
        peak=peak,
        members_left=fleet.members,
        lasted_s=elapsed_s,
        leader_died=keeper.died,
    )


class Keeper:
    """Does what `sd-scheduler autoscale` does, in a thread: with no worker left, nobody else would begin."""

    def __init__(self, parts: FleetParts) -> None:
        self._leader = make_leader(parts, name="demo")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-leader", daemon=True)
        self.died = ""
        """The error that ended it; empty while it lives, and when it was stopped."""

    def start(self) -> None:
        """Lead from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Come to an end, after the tick under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._tick()):
                pass
        except Exception as error:
            self.died = f"{type(error).__name__}: {error}"
            log.exception("fleet_loop_failed", loop="demo")

    def _tick(self) -> float:
        try:
            return self._leader.tick().next_s
        except Unavailable as error:
            log.warning("fleet_loop_waits", loop="demo", error=error.message)
            return TICK_S
