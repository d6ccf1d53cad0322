"""All loops of one or two hosts together, on a fake clock: whatever happens, each task completes once."""

from __future__ import annotations

import random

import pytest
from fakes import FakeClock, FakeImageStore, FakeQueue, FakeTaskStore, FakeTopic
from hypothesis import given
from hypothesis import strategies as st
from worker_in_memory import LEASE_S, Worker, body_of

from scheduler.domain.errors import BadResult, EngineLost, Fatal, OutOfMemory, Rejected, Unavailable

OUTAGES = (
    *("read", "claim", "renew", "release", "complete", "fail", "put", "receive", "extend", "give_back", "delete"),
    *("publish", "announced"),
)
OF_RECORDS = {"read", "claim", "renew", "release", "complete", "fail", "announced"}
TASK_ERRORS = (BadResult("half a picture"), EngineLost("it died"), Fatal("no GPU"), OutOfMemory("too large"))


@pytest.fixture
def world():
    clock = FakeClock()
    return World(clock, hosts=2)


class World:
    """Hosts over one queue, one table and one bucket."""

    def __init__(self, clock: FakeClock, *, hosts: int, max_runs: int = 1000) -> None:
        self.clock = clock
        shared = {
            "tasks": FakeTaskStore(clock, max_runs=max_runs),
            "queue": FakeQueue(clock, lease_s=LEASE_S, longest_wait_s=0.0),
            "images": FakeImageStore(),
            "topic": FakeTopic(),
        }
        self.topic = shared["topic"]
        self.tasks, self.queue, self.images = shared["tasks"], shared["queue"], shared["images"]
        self.make = lambda: Worker(clock, max_runs=max_runs, **shared)
        self.hosts = [self.make() for _ in range(hosts)]

    def statuses(self) -> set[str]:
        return {record["status"] for record in self.tasks.records.values()}

    def until_empty(self, *, turns: int = 400) -> None:
        for _ in range(turns):
            if not self.queue.bodies:
                return
            for host in self.hosts:
                step(host, "work")
            self.clock.advance(5.0)
        raise AssertionError(f"not done: {self.queue.bodies}")


def step(host: Worker, name: str) -> None:
    """Let one loop of a host have a turn."""
    match name:
        case "work":
            host.keep()
            host.work()
        case "receive" | "prepare" | "store" | "announce" | "delete" | "keep":
            getattr(host, name)()
        case "render":
            host.render.cycle()


STEPS = (
    "receive",
    "prepare",
    "render",
    "render",
    "store",
    "announce",
    "delete",
    "keep",
    "lapse",
    "duplicate",
    "kill",
    "break",
)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1), st.integers(0, 10_000)), max_size=120))
def test_whatever_order_things_happen_in_each_task_completes_once_and_nothing_is_left(steps):
    """Turns of any loop of two hosts, lapses of time, duplicates, deaths without warning, calls that fail or whose
    answers are lost.
    """
    world = World(FakeClock(), hosts=2)
    for n in range(4):
        world.queue.send(body_of(f"t{n}"))
    written: dict[str, bytes] = {}
    for name, which, number in steps:
        host = world.hosts[which]
        match name:
            case "lapse":
                world.clock.advance(number % 70)
            case "duplicate":
                world.queue.send(body_of(f"t{number % 4}"))
            case "kill":
                world.hosts[which] = world.make()
            case "break":
                call = OUTAGES[number % len(OUTAGES)]
                store = {"put": world.images, "publish": world.topic}.get(call, world.queue)
                if call in OF_RECORDS:
                    store = world.tasks
                store.fail_next(1 + number % 3, Unavailable("down"), on=call, applied=number % 2 == 1)
            case _:
                step(host, name)
        for key, data in world.images.data.items():
            assert written.setdefault(key, data) == data, "a picture was written over"
    for store in (world.tasks, world.queue, world.images, world.topic):
        store.faults.clear()
    world.clock.advance(LEASE_S + 1)
    world.until_empty()
    assert set(world.tasks.records) == {f"t{n}" for n in range(4)}
    assert world.statuses() == {"completed"}
    assert set(world.images.stored) == {f"tasks/t{n}/1.png" for n in range(4)}
    assert {message["id"] for message, _ in world.topic.published} == {f"t{n}" for n in range(4)}
    assert len({named for _, named in world.topic.published}) == 4  # whoever hears of one twice can know it
    for task_id, record in world.tasks.records.items():
        [image] = record["images"]
        assert image["sha256"] == world.images.stored[f"tasks/{task_id}/1.png"].sha256
        assert "owner" in record
    assert world.queue.refused == []


AGAIN = ("receive", "spoiled", "good", "delete", "keep", "lapse", "kill", "again", "again", "old")


@given(st.lists(st.tuples(st.sampled_from(AGAIN), st.integers(0, 1), st.integers(0, 10_000)), max_size=40))
def test_a_failed_task_that_is_sent_again_runs_again_whatever_else_is_going_on(steps):
    """Also when old copies of its message come in beside the new one, or while those are being deleted."""
    world = World(FakeClock(), hosts=2)
    for n in range(2):
        world.queue.send(body_of(f"t{n}"))
    wished: dict[str, int] = {}
    for name, which, number in steps:
        host, task_id = world.hosts[which], f"t{number % 2}"
        record = world.tasks.record(task_id) or {}
        match name:
            case "lapse":
                world.clock.advance(number % 40)
            case "kill":
                world.hosts[which] = world.make()
            case "spoiled" | "good":
                if name == "spoiled":
                    host.engine.fail_next(1, Rejected("no"), on="generate")
                for loop in ("receive", "prepare", "render", "render", "store"):
                    step(host, loop)
            case "old":
                world.queue.send(body_of(task_id), sent_at_s=world.clock.now() - 1000.0)
            case "again" if record.get("status") == "failed":
                world.clock.advance(0.01)
                world.queue.send(body_of(task_id))
                wished[task_id] = record["attempt"]
            case "again":
                pass
            case _:
                step(host, name)
    world.clock.advance(LEASE_S + 1)
    world.until_empty()
    for task_id, attempt in wished.items():
        assert world.tasks.record(task_id)["attempt"] > attempt


@pytest.mark.parametrize("seed", range(8))
def test_tasks_that_fail_in_all_ways_all_come_to_an_end(seed):
    dice = random.Random(seed)
    world = World(FakeClock(), hosts=2, max_runs=3)
    for n in range(30):
        world.queue.send(body_of(f"t{n}", payload={"steps": dice.choice([20, 20, 0])}))
    for _ in range(15):
        for host in world.hosts:
            if dice.random() < 0.3:
                host.engine.fail_next(1, dice.choice(TASK_ERRORS), on=dice.choice(["generate", "output"]))
            step(host, "work")
        world.clock.advance(dice.choice([1.0, 7.0, 40.0]))
    for host in world.hosts:
        host.engine.faults.clear()
    world.until_empty()
    assert len(world.tasks.records) == 30
    assert world.statuses() <= {"completed", "failed"}
    for record in world.tasks.records.values():
        assert record["runs"] <= 3
        if record["status"] == "failed":
            assert record["error"]["class"] in {"rejected", "bad-result", "engine-lost", "fatal", "out-of-memory"}


def test_two_hosts_share_the_work_and_render_each_task_once(world):
    for n in range(20):
        world.queue.send(body_of(f"t{n}"))
    world.until_empty()
    posted = [host.engine.posted for host in world.hosts]
    assert sorted(posted[0] + posted[1]) == sorted(f"t{n}" for n in range(20))
    assert all(posted)


def test_a_rejected_task_among_good_ones_fails_alone(world):
    world.hosts[0].engine.fail_next(1, Rejected("no"), on="generate")
    for n in range(5):
        world.queue.send(body_of(f"t{n}"))
    world.until_empty()
    statuses = sorted(record["status"] for record in world.tasks.records.values())
    assert statuses == ["completed"] * 4 + ["failed"]
