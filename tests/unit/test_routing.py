"""Tasks for several kinds of engines on one host: who runs what, and that none waits for another's work."""

from __future__ import annotations

import pytest
from fakes import FakeClock, FakeEngine
from worker_in_memory import Worker

from scheduler.domain.routing import Routes
from scheduler.domain.task import Task, TaskType

WEBUI = frozenset({TaskType.TXT2IMG, TaskType.IMG2IMG})
GRAPHS = frozenset({TaskType.PIPELINE})


def engine(name: str, *runtimes: str, task_types: frozenset[TaskType]) -> FakeEngine:
    return FakeEngine(FakeClock(), name=name, runtimes=frozenset(runtimes), task_types=task_types)


WEBUIS = [engine(f"webui-{n}", "sdwebui", "legacy", task_types=WEBUI) for n in (1, 2)]
COMFY = engine("comfy-1", "comfy", task_types=GRAPHS)
OTHER = engine("Comfy-2", "Comfy", task_types=GRAPHS)
ALL = [*WEBUIS, COMFY, OTHER]


def task(kind: TaskType = TaskType.TXT2IMG, runtime: str | None = None) -> Task:
    return Task(task_id="t", task_type=kind, payload={}, fingerprint="", runtime=runtime)


@pytest.mark.parametrize(
    ("asked", "able"),
    [
        (task(), WEBUIS),
        (task(runtime="legacy"), WEBUIS),
        (task(runtime="Comfy"), [OTHER]),
        (task(TaskType.PIPELINE), [COMFY]),
        (task(TaskType.PIPELINE, "Comfy"), [OTHER]),
        (task(TaskType.PIPELINE, "legacy"), WEBUIS),
        (task(runtime="COMFY"), WEBUIS[:1]),
        (task(TaskType.EXTRA_SINGLE), WEBUIS[:1]),
    ],
    ids=[
        "by its type",
        "by an alias",
        "case matters",
        "the first able",
        "by name",
        "refused there",
        "unknown",
        "unable",
    ],
)
def test_a_task_is_for_the_engines_of_its_runtime(asked, able):
    routes = Routes(ALL)
    assert [each.name for each in ALL if routes.leads_to(each, asked)] == [each.name for each in able]


def test_what_nobody_here_serves_has_no_runtime():
    routes = Routes(ALL)
    assert routes.runtime(task(runtime="COMFY")) is None
    assert routes.runtime(task(TaskType.EXTRA_BATCH)) is None
    assert routes.runtimes == ["legacy", "sdwebui", "comfy", "Comfy"]


@pytest.fixture
def worker(clock: FakeClock) -> Worker:
    worker = Worker(clock, engines=2)
    worker.engines[0].runtimes, worker.engines[0].task_types = frozenset({"sdwebui"}), WEBUI
    worker.engines[1].runtimes, worker.engines[1].task_types = frozenset({"comfy"}), GRAPHS
    return worker


def test_each_engine_runs_its_own_although_others_wait_before_it(worker):
    for number in range(3):
        worker.send(f"picture-{number}")
    worker.send("graph", task_type="pipeline")
    for _ in range(4):
        worker.receive()
    worker.prepare(lane=1)
    worker.renders[1].cycle()
    worker.renders[1].cycle()
    worker.work(rounds=4)
    assert worker.engines[1].posted == ["graph"]
    assert sorted(worker.engines[0].posted) == ["picture-0", "picture-1", "picture-2"]


def test_an_engine_without_work_is_received_for_although_the_other_has_enough(worker):
    for number in range(6):
        worker.send(f"picture-{number}")
    worker.send("graph", task_type="pipeline")
    for _ in range(7):
        worker.receive()
    assert "graph" in [one.task.task_id for one in worker.held.all()]


def test_no_more_of_the_others_work_is_held_than_may_wait_for_a_checkpoint(worker):
    for number in range(40):
        worker.send(f"picture-{number}")
    for _ in range(30):
        worker.receive()
    assert 1 <= len(worker.held.all()) <= 11


def test_a_task_whose_engine_is_down_goes_back_while_another_works(worker):
    worker.lanes[1].set_ready(ready=False, why="starting")
    worker.send("graph", task_type="pipeline")
    worker.send("picture")
    worker.receive()
    worker.receive()
    assert [one.task.task_id for one in worker.held.all()] == ["picture"]
    assert worker.queue.delays[0][1] >= 30


def test_while_no_engine_is_up_nothing_that_came_is_given_away(worker):
    worker.send("graph", task_type="pipeline")
    for lane in worker.lanes:
        lane.set_ready(ready=True)
    messages = worker.queue.receive(1, wait_s=0)
    for lane in worker.lanes:
        lane.set_ready(ready=False, why="starting")
    worker.processor.admit(messages)
    assert [one.task.task_id for one in worker.held.all()] == ["graph"]
