"""Tasks for several kinds of engines on one host: who runs what, and that none waits for another's work."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FakeAnswer, FakeClock, FakeEngine, FakeTaskStore
from worker_in_memory import Worker, body_of

from scheduler.aws.shape import MAX_RECEIVE_COUNT
from scheduler.domain.errors import Counts, Transient
from scheduler.domain.pace import Needs, Pace
from scheduler.domain.ports import PreparedRun
from scheduler.domain.retry import MOST_DELIVERIES
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
    worker.lanes[1].pace = Pace()
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
    worker.admission.admit(messages)
    assert [one.task.task_id for one in worker.held.all()] == ["graph"]


def test_what_a_task_asks_for_is_read_by_the_engine_it_leads_to(worker, monkeypatch):
    monkeypatch.setattr(worker.engines[1], "needs", lambda task: Needs(task.payload["loads"], 7.0))
    worker.send("graph", task_type="pipeline", payload={"loads": "xl"}, checkpoint="beside")
    worker.send("picture", payload={"loads": "xl"}, checkpoint="beside")
    worker.receive()
    worker.receive()
    assert (worker.one("graph").wanted, worker.one("graph").work) == ("xl", 7.0)
    assert worker.one("picture").wanted == "beside"


def test_how_long_pictures_take_says_nothing_of_graphs(worker):
    worker.send("picture")
    worker.work()
    assert worker.lanes[0].pace.mean_s == 1.0
    assert worker.lanes[1].pace.mean_s is None


def test_what_is_held_for_an_engine_that_died_leaves_room_for_the_others(clock):
    worker = Worker(clock, engines=3)
    for lane, name in zip(worker.lanes, "abc", strict=True):
        lane.engine.runtimes, lane.pace = frozenset({name}), Pace()
    for n in range(20):
        worker.send(f"a{n}", runtime="a")
    for _ in range(30):
        worker.receive()
    assert len(worker.held_ids) == 20
    worker.lanes[0].set_ready(ready=False, why="died")
    worker.send("b", runtime="b")
    worker.send("c", runtime="c")
    worker.receive()
    worker.receive()
    assert {"b", "c"} <= set(worker.held_ids)


def test_a_task_whose_engine_stays_down_is_kept_for_a_person_before_sqs_takes_it_unexplained(worker, clock):
    worker.lanes[1].set_ready(ready=False, why="starting")
    worker.send("graph", task_type="pipeline")
    began_s = clock.monotonic()
    while worker.queue.bodies and clock.monotonic() - began_s < 24 * 3600:
        worker.receive()
        clock.advance(10)
    [(message, why)] = worker.queue.refused
    assert message.receive_count == MOST_DELIVERIES < MAX_RECEIVE_COUNT
    assert "its engine was down" in why.message
    assert clock.monotonic() - began_s > 3 * 3600


# bodies that lie elsewhere


POINTER = '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "inputs", "s3Key": "big.json"}]'
AT = "s3://inputs/big.json"


def test_a_body_left_in_s3_is_fetched_and_is_a_task_like_any(clock):
    worker = Worker(clock)
    worker.inputs.bodies[AT] = body_of("big").encode()
    worker.queue.send(POINTER)
    worker.work()
    assert worker.tasks.record("big")["status"] == "completed"
    assert worker.inputs.asked[0] == (AT, "body")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "may not be gone to"),
        (b"\xff\xfe", "holds no text"),
        (POINTER.encode(), "pointer again"),
        (b"{", "not JSON"),
    ],
    ids=["refused", "no text", "a pointer again", "no JSON"],
)
def test_a_body_that_cannot_be_used_is_refused_with_its_message(clock, body, said):
    worker = Worker(clock)
    if body is not None:
        worker.inputs.bodies[AT] = body
    worker.queue.send(POINTER)
    worker.receive()
    ((_, why),) = worker.queue.refused
    assert said in why.message
    assert worker.held.all() == []


def test_a_body_that_cannot_be_fetched_now_goes_back(clock, monkeypatch):
    worker = Worker(clock)

    def unreachable(address: str, *, field: str, max_bytes: int) -> bytes:
        raise Transient(f"{field}: {address} timed out {max_bytes}", counts=Counts.TRY)

    monkeypatch.setattr(worker.inputs, "read", unreachable)
    worker.queue.send(POINTER)
    worker.receive()
    assert worker.queue.refused == []
    assert worker.queue.delays[0][1] > 0


def test_a_body_that_can_never_be_fetched_is_kept_for_a_person_before_sqs_takes_it_away(clock, monkeypatch):
    worker = Worker(clock)

    def unreachable(address: str, *, field: str, max_bytes: int) -> bytes:
        raise Transient(f"{field}: {address} timed out {max_bytes}", counts=Counts.TRY)

    monkeypatch.setattr(worker.inputs, "read", unreachable)
    worker.queue.send(POINTER)
    for _ in range(50):
        worker.receive()
        clock.advance(600)
    ((_, why),) = worker.queue.refused
    assert "timed out" in why.message
    assert why.field == "body"


# jobs that an engine goes on with by itself


class Jobs(FakeEngine):
    """An engine that gives its runs names, under which this process dies."""

    def generate(self, run: PreparedRun, *, deadline_s: float, on_sent: Any = None) -> FakeAnswer:
        on_sent("job-1")
        raise KeyboardInterrupt


def test_a_job_is_noted_at_once_and_taken_up_by_who_claims_it_next_on_this_host(clock):
    dead = Worker(clock)
    dead.lane.engine = Jobs(clock)
    dead.send("one")
    dead.receive()
    dead.prepare()
    with pytest.raises(KeyboardInterrupt):
        dead.render.cycle()
    clock.advance(400)
    next_one = Worker(clock, tasks=dead.tasks, queue=dead.queue)
    next_one.receive()
    next_one.prepare()
    assert next_one.lane.peek().run.resume_job_id == "job-1"
    next_one.renders_until_settled()
    next_one.store()
    assert next_one.tasks.record("one")["comfy_job_id"] == "job-1", "its clients look for it"


def test_a_job_of_another_host_says_nothing_here(clock):
    store = FakeTaskStore(clock, worker="another")
    worker = Worker(clock, tasks=store)
    worker.send("one")
    worker.receive()
    worker.prepare()
    record = store.record("one")
    store.put_record(record | {"comfy_job_id": "job-7", "comfy_job_at": "elsewhere", "lease_until": 0})
    claim = store.claim(
        worker.held.all()[0].task, worker.held.receipts(worker.held.all()[0])[0], owner="next", lease_s=30
    )
    assert claim.job_id is None
