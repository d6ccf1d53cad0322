"""This host as one of a fleet: who it is, one daemon on it, what it reports, and when it asks to go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeClock, FakeEngine
from fakes.fleet_state import FakeFleetState
from fleet_in_memory import ModelFleet, Wishes, World

from scheduler import config
from scheduler.autoscale.protocol import State
from scheduler.autoscale.survey import Bounds
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.domain.pace import Pace
from scheduler.domain.task import Message, Task, TaskType
from scheduler.held import Held, HeldTasks
from scheduler.host.departure import Leaving
from scheduler.host.fitness import UNHEALTHY_S
from scheduler.host.host import Host, forever
from scheduler.host.one_daemon import OneDaemon
from scheduler.intake import Intake
from scheduler.local.metadata import LocalMetadata
from scheduler.loops.lane import Lane
from scheduler.observe.metrics import Metrics

AWS = "[aws]\naws_region = us-east-1\nsqs_queue_url = tasks\ndynamodb_table = records\ns3_bucket = pictures\n"
FLEET = "[autoscaling]\nenabled = true\nfleet = local\nfleet_id = http://127.0.0.1:1\nstuck_minutes = 10\n"


class Place:
    """A host with its metadata, in a fleet of fakes."""

    def __init__(
        self,
        folder: Path,
        metadata: LocalMetadata,
        clock: FakeClock,
        *,
        name: str,
        fleet: bool = True,
        state: FakeFleetState | None = None,
    ) -> None:
        self.instance = metadata.add(name)
        self.clock = clock
        self.trouble = ""
        self.leaving: list[Leaving] = []
        self.intake = Intake()
        self.metrics = Metrics()
        self.held = HeldTasks(clock)
        self.lane, self.other = [Lane(FakeEngine(clock), self.held, clock, pace=Pace()) for _ in range(2)]
        self.state = state or FakeFleetState(clock.now)
        self.fleet = ModelFleet(World(has_outsider=False))
        file = folder / f"{name}.ini"
        file.write_text(AWS + (FLEET if fleet else ""))
        self.host = Host(
            config.load(file, {}),
            {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.instance.endpoint},
            intake=self.intake,
            held=self.held,
            lanes=[self.lane, self.other],
            clock=clock,
            metrics=self.metrics,
            trouble=lambda: self.trouble,
            on_leaving=self.leaving.append,
            find_fleet=self._parts,
        )

    def _parts(self, *_: Any, **__: Any) -> Any:
        terms = SimpleNamespace(policy=Wishes(1), bounds=Bounds(min_capacity=1, max_capacity=1), settings_no=1)
        return SimpleNamespace(
            settings=SimpleNamespace(scheduler=SimpleNamespace(task_deadline_s=600.0)),
            state=self.state,
            fleet=self.fleet,
            backlog=None,
            watch=SimpleNamespace(settings_no=1),
            terms=lambda: terms,
        )

    def take_in(self, task_id: str) -> Held:
        message = Message(
            queue=0, message_id=task_id, receipt=task_id, body="", sent_at_s=0, receive_count=1, received_s=0
        )
        task = Task(task_id=task_id, task_type=TaskType.TXT2IMG, payload={}, fingerprint="")
        return self.held.take_in(task, message)

    def beat(self, seconds: float = 10.0, times: int = 1) -> None:
        for _ in range(times):
            self.host.belong()
            self.clock.advance(seconds)

    @property
    def record(self) -> Any:
        found = self.state.worker(self.instance.instance_id)
        assert found is not None
        return found


@pytest.fixture
def metadata(clock: FakeClock) -> Iterator[LocalMetadata]:
    with LocalMetadata(clock) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, metadata: LocalMetadata, clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(tmp_path, metadata, clock, name=f"i-{abs(hash(request.node.nodeid)):x}")
    yield made
    made.host.close()


def test_it_receives_nothing_before_the_registry_has_been_read(place):
    assert place.intake.why
    place.host.enter()
    assert place.intake.why
    place.beat()
    assert not place.intake.why
    assert place.record.state is State.ACTIVE


def test_readiness_is_told_once_an_engine_is_ready(place, clock):
    place.host.enter()
    place.beat(times=2)
    assert place.record.report.ready_s is None
    place.lane.set_ready(ready=True)
    ready_s = clock.now()
    place.beat(times=3)
    assert place.record.report.ready_s == pytest.approx(ready_s)
    assert place.record.report.idle_s > 20


def test_a_host_that_could_work_and_cannot_for_five_minutes_asks_to_be_replaced(place):
    place.host.enter()
    place.lane.set_ready(ready=True)
    place.beat()
    place.trouble = "its disk is full"
    place.beat(times=int(UNHEALTHY_S / 10))
    assert place.record.state is State.ACTIVE
    place.beat(times=4)
    assert (place.record.state, place.record.replace, place.record.why) == (State.DRAINED, True, "its disk is full")


def test_a_moment_of_trouble_is_no_reason(place):
    place.host.enter()
    place.lane.set_ready(ready=True)
    for _ in range(20):
        place.trouble = "the engine restarts"
        place.beat(times=3)
        place.trouble = ""
        place.beat()
    assert place.record.state is State.ACTIVE


def test_a_single_instance_that_cannot_work_stops_and_is_not_replaced(place):
    place.fleet.replaces = False
    place.host.enter()
    place.lane.set_ready(ready=True)
    place.beat()
    place.trouble = "the GPU is gone"
    place.beat(times=40)
    assert place.record.state is State.ACTIVE
    place.beat(times=25)
    assert (place.record.state, place.record.replace) == (State.DRAINED, False)


def test_a_task_that_runs_on_long_after_its_deadline_does_not_keep_its_worker(place, clock):
    place.host.enter()
    place.lane.set_ready(ready=True)
    place.beat()
    place.lane.running = place.take_in("endless")
    place.beat(times=119)
    assert place.record.state is State.ACTIVE
    place.other.running = place.take_in("good")
    place.beat(times=4)
    assert place.record.state is State.DRAIN, "the other engine's task ends first"
    assert "endless" in place.record.why
    place.held.drop(place.other.running)
    place.other.running = None
    place.beat()
    assert place.record.state is State.DRAINED


def test_what_waits_behind_engines_that_all_hang_does_not_keep_it(place):
    place.host.enter()
    place.lane.set_ready(ready=True)
    place.beat()
    place.lane.running, place.other.running = place.take_in("endless"), place.take_in("too")
    place.take_in("behind them")
    place.beat(times=125)
    assert place.record.state is State.DRAINED


def test_a_daemon_started_anew_knows_that_the_host_was_ready_in_this_boot(place, tmp_path, metadata, clock):
    place.host.enter()
    place.lane.set_ready(ready=True)
    place.beat(times=2)
    ready_s = place.record.report.ready_s
    place.host.close()
    anew = Place(tmp_path, metadata, clock, name=place.instance.instance_id, state=place.state)
    anew.host.enter()
    anew.beat(times=3)
    assert anew.record.report.ready_s == ready_s
    anew.host.close()


def test_a_notice_shuts_the_door_at_once_marks_the_registry_and_is_told_once(place, clock):
    place.host.enter()
    place.beat()
    place.instance.interrupt(in_s=120)
    place.host.watch()
    assert "terminate" in place.intake.why
    place.host.watch()
    (leaving,) = place.leaving
    assert leaving.deadline_s == pytest.approx(clock.now() + 120, abs=12)
    place.beat(seconds=1.0, times=2)
    assert (place.record.state, place.record.replace) == (State.DRAINED, True)
    assert place.host.lead() == float("inf"), "it leads no more"
    assert b'sd_scheduler_fleet_notices_total{kind="interruption"} 1.0' in place.metrics.text()


def test_a_notice_that_leaves_less_time_is_told_too_and_one_that_leaves_more_is_not(place, clock):
    place.host.enter()
    for in_s in (600, 120, 300):
        place.instance.interrupt(in_s=in_s)
        place.host.watch()
        clock.advance(6)
    assert [round(told.deadline_s - clock.now()) for told in place.leaving] == [582, 108]


def test_a_rebalance_recommendation_makes_it_the_first_to_go(place):
    place.host.enter()
    place.instance.rebalance()
    place.host.watch()
    place.beat(times=2)
    assert place.record.state is State.ACTIVE
    assert place.record.report.leave_first


def test_a_second_daemon_on_the_instance_is_refused_and_told_why(place):
    place.host.enter()
    script = f"from scheduler.host.one_daemon import OneDaemon; OneDaemon({place.instance.instance_id!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "another daemon runs on" in done.stderr


def test_the_lock_goes_with_its_process():
    script = "from scheduler.host.one_daemon import OneDaemon; OneDaemon('i-short-lived')"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    OneDaemon("i-short-lived").close()


def test_a_fleet_without_instance_metadata_is_a_wrong_configuration(tmp_path, clock):
    file = tmp_path / "conf.ini"
    file.write_text(AWS + FLEET)
    host = Host(
        config.load(file, {}),
        {"AWS_EC2_METADATA_DISABLED": "true"},
        intake=Intake(),
        held=HeldTasks(clock),
        lanes=[],
        clock=clock,
        metrics=Metrics(),
        trouble=str,
        on_leaving=lambda _: None,
    )
    with pytest.raises(ConfigError, match="needs EC2's instance metadata"):
        host.enter()


def test_without_a_fleet_it_watches_for_notices_all_the_same(tmp_path, metadata, clock):
    alone = Place(tmp_path, metadata, clock, name="i-alone", fleet=False)
    alone.host.enter()
    assert not alone.intake.why
    assert alone.host.belong() == alone.host.lead() == float("inf")
    alone.instance.interrupt(in_s=120)
    alone.host.watch()
    assert alone.intake.why
    assert len(alone.leaving) == 1


def test_metadata_that_does_not_answer_holds_up_no_work_where_there_is_no_fleet(tmp_path, metadata, clock):
    alone = Place(tmp_path, metadata, clock, name="i-mute", fleet=False)
    alone.instance.document("instance-id", None)
    alone.host.enter()
    assert not alone.intake.why
    alone.instance.document("instance-id", "i-mute")
    alone.host.watch()
    assert alone.host.instance_id == "i-mute"


def test_a_loop_of_the_fleet_outlives_its_errors():
    said = iter([Unavailable("no answer"), ValueError("a bug"), 1.0, float("inf")])
    pauses: list[float] = []

    def run() -> float:
        outcome = next(said)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def stopped(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    forever(run, name="belong", stopped=stopped)
    assert pauses == [5.0, 5.0, 1.0]
