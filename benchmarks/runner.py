"""One run: a fresh world, a full queue, the consumer, the interruptions, and what everybody saw of it."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.consumer import Consumer, ConsumerProcess, Stopped
from benchmarks.engine import Use
from benchmarks.proxy import Call, Image
from benchmarks.scenarios import Scenario
from benchmarks.tasks import FORMATS, BenchTask, make_tasks
from benchmarks.world import ROOT, World

TICK_S = 0.2
RESTART_AFTER_S = 1.0
IDLE_BEFORE_STOP_S = 1.0
EMPTY_FOR_S = 3.0
"""A queue that is empty for this long, with images missing, has lost them."""
DEATHS_AT_START = 5
MAX_DEATHS = 30


class ConsumerUseless(RuntimeError):
    """The command ended again and again without receiving one message."""


@dataclass(slots=True, kw_only=True)
class Watched:
    """What was seen from outside while the consumer worked."""

    cpu_at_first_message_s: float | None = None
    deaths: int = 0
    kills: int = 0
    stops: list[Stopped] = field(default_factory=list)
    in_flight_after_stops: list[int] = field(default_factory=list)
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that the figures of a run are made of; times are CLOCK_MONOTONIC."""

    scenario: Scenario
    tasks: list[BenchTask]
    table_key: str
    spawned_s: float
    cpu_s: float
    peak_rss_bytes: int
    load_before: float
    watched: Watched
    idle_stop: Stopped
    left: int
    in_flight: int
    calls: list[Call]
    images: list[Image]
    uses: list[Use]
    refused_by_engine: int
    items: list[dict[str, Any]]
    dead_letters: list[str]
    set_aside: list[str]


def run(
    consumer: Consumer,
    scenario: Scenario,
    format_name: str,
    *,
    latency_ms: Mapping[str, float],
    emulator: str = "moto",
    out: Path,
    label: str,
) -> Observed:
    """Run `scenario` once; logs go to `out`, under names that begin with `label`.

    Raises ConsumerUseless when the command does not even start to work.
    """
    message_format = FORMATS[format_name]
    tasks = make_tasks(scenario, uuid.uuid4().hex[:8])
    good = sum(task.bad is None for task in tasks)
    load_before = os.getloadavg()[0]
    home = (out / f"{label}.home").resolve()
    home.mkdir(parents=True, exist_ok=True)
    with World(scenario, message_format, latency_ms, out / f"{label}.world.log", emulator=emulator) as world:
        world.send(message_format.write(task) for task in tasks)
        world.write_conf(home / "conf.ini")
        process = ConsumerProcess(
            consumer,
            world.names() | {"conf": str(home / "conf.ini")},
            world.environment() | {"HOME": str(home), "PYTHONUNBUFFERED": "1"},
            ROOT,
            out / f"{label}.consumer.log",
        )
        spawned_s = time.monotonic()
        process.start()
        try:
            watched = _Watch(process, world, scenario, good).until_done()
            cpu_s = process.cpu_s
            time.sleep(IDLE_BEFORE_STOP_S)
            idle_stop = process.terminate()
        finally:
            process.kill()
        visible, in_flight = world.queued()
        seen, engine = world.records()
        return Observed(
            scenario=scenario,
            tasks=tasks,
            table_key=message_format.table_key,
            spawned_s=spawned_s,
            cpu_s=cpu_s,
            peak_rss_bytes=process.peak_rss_bytes,
            load_before=load_before,
            watched=watched,
            idle_stop=idle_stop,
            left=visible + in_flight,
            in_flight=in_flight,
            calls=[Call(**call) for call in seen["calls"]],
            images=[Image(**image) for image in seen["images"]],
            uses=[Use(**use) for use in engine["uses"]],
            refused_by_engine=engine["refused"],
            items=world.items(),
            dead_letters=world.dead_letters(),
            set_aside=world.set_aside(),
        )


class _Watch:
    """Looks on, interrupts as the scenario says, and sees when it is over."""

    def __init__(self, process: ConsumerProcess, world: World, scenario: Scenario, good: int) -> None:
        self._process = process
        self._world = world
        self._scenario = scenario
        self._good = good
        self._rng = random.Random(scenario.name)
        stops = scenario.kills + scenario.terms
        self._marks = [good * (number + 1) / (stops + 1) for number in range(stops)]
        self._seen = Watched()
        self._empty_since_s: float | None = None
        self._next_look_s = 0.0

    def until_done(self) -> Watched:
        """Return when all is done, or nothing more will come, or time is up."""
        end_s = time.monotonic() + self._scenario.limit_s
        while True:
            time.sleep(TICK_S)
            self._process.weigh()
            progress = self._world.progress()
            if progress["started"] and self._seen.cpu_at_first_message_s is None:
                self._seen.cpu_at_first_message_s = self._process.cpu_s
            self._revive(has_started=progress["started"])
            if self._marks and progress["images"] >= self._marks[0]:
                self._marks.pop(0)
                self._interrupt()
            if self._is_over(progress["images"]):
                break
            if time.monotonic() > end_s or self._seen.deaths > MAX_DEATHS:
                self._seen.timed_out = True
                break
        self._process.weigh()
        return self._seen

    def _revive(self, *, has_started: bool) -> None:
        if not self._process.is_dead:
            return
        self._seen.deaths += 1
        if self._seen.deaths >= DEATHS_AT_START and not has_started:
            raise ConsumerUseless(f"the consumer ended {self._seen.deaths} times without receiving a message")
        time.sleep(RESTART_AFTER_S)
        self._process.start()

    def _interrupt(self) -> None:
        time.sleep(self._rng.random() * max(0.3, self._scenario.render_s))  # anywhere within a render
        if self._scenario.kills:
            self._process.kill()
            self._seen.kills += 1
        else:
            self._seen.stops.append(self._process.terminate())
            self._seen.in_flight_after_stops.append(self._world.queued()[1])
        self._process.start()

    def _is_over(self, images: int) -> bool:
        now = time.monotonic()
        if now >= self._next_look_s:
            # The emulator answers on the same cores: it is asked often only when the end is near.
            self._next_look_s = now + (0.4 if images >= self._good else 2.0)
            is_empty = sum(self._world.queued()) == 0
            self._empty_since_s = (self._empty_since_s or now) if is_empty else None
        if self._empty_since_s is None:
            return False
        return images >= self._good or now - self._empty_since_s > EMPTY_FOR_S
