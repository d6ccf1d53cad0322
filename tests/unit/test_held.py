"""The registry of what this process holds: joins, receipts, choices, waits, and what it tells people."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import pytest

from scheduler.domain.errors import Rejected
from scheduler.domain.pace import Pace
from scheduler.domain.task import Claim, Message, Progress, Task, TaskType
from scheduler.engines import sdwebui_payload
from scheduler.held import DEEPEN_S, LOOK_AHEAD, UNSTARTED, HeldTasks, State

NEVER_S = 3600.0
"""A wait that ends only by being woken."""


@pytest.fixture
def held_tasks(clock):
    return HeldTasks(clock)


def task_of(
    task_id: str = "t1",
    *,
    fingerprint: str = "f",
    checkpoint: str | None = None,
    by_reference: bool = True,
    **payload: Any,
) -> Task:
    return Task(
        by_reference=by_reference,
        task_id=task_id,
        task_type=TaskType.TXT2IMG,
        payload=payload,
        fingerprint=fingerprint,
        checkpoint=checkpoint,
    )


def delivery(
    message_id: str = "m1", receipt: str = "r1", *, queue: int = 0, received_s: float = 1000.0, receive_count: int = 1
) -> Message:
    return Message(
        queue=queue,
        message_id=message_id,
        receipt=receipt,
        body="",
        sent_at_s=1_900_000_000.0,
        receive_count=receive_count,
        received_s=received_s,
    )


def take_in(held_tasks: HeldTasks, task_id: str, **task: Any):
    return hold(held_tasks, task_of(task_id, **task), delivery(f"m-{task_id}", f"r-{task_id}"))


def hold(held_tasks: HeldTasks, task: Task, message: Message):
    return held_tasks.take_in(task, message, sdwebui_payload.needs(task))


def same(title: str | None) -> str | None:
    return title


def receipts(held_tasks: HeldTasks, held: Any) -> list[str]:
    return [message.receipt for message in held_tasks.receipts(held)]


def ended(thread: threading.Thread) -> bool:
    thread.join(10)
    return not thread.is_alive()


# deliveries


def test_a_task_taken_in_waits_for_an_engine(held_tasks):
    held = hold(held_tasks, task_of(steps=20, width=1000, height=1000), delivery(queue=1, received_s=990.0))
    assert (held.state, held.queue, held.received_s, held.work) == (State.WAITING, 1, 990.0, 20.0)
    assert held_tasks.all() == [held]


def test_the_same_message_again_replaces_its_receipt(held_tasks):
    held = held_tasks.take_in(task_of(), delivery("m1", "r1"))
    assert held_tasks.take_in(task_of(), delivery("m1", "r2", receive_count=2)) is held
    assert receipts(held_tasks, held) == ["r2"]
    assert held.receive_count == 2


def test_another_message_of_the_task_joins_it(held_tasks):
    held = held_tasks.take_in(task_of(), delivery("m1", "r1", receive_count=4))
    assert held_tasks.take_in(task_of(), delivery("m2", "r2")) is held
    assert receipts(held_tasks, held) == ["r1", "r2"]
    assert held.receive_count == 4
    assert len(held_tasks.all()) == 1


@pytest.mark.parametrize("state", State)
def test_a_delivery_joins_whatever_is_being_done_with_the_task(held_tasks, state):
    held = held_tasks.take_in(task_of(), delivery("m1"))
    held_tasks.move(held, state)
    held_tasks.take_in(task_of(), delivery("m2", "r2"))
    assert held_tasks.join("t1", delivery("m3", "r3"))
    assert receipts(held_tasks, held) == ["r1", "r2", "r3"]
    assert held.state is state


def test_the_id_with_another_request_is_refused_and_harms_nothing(held_tasks):
    held = held_tasks.take_in(task_of(fingerprint="f"), delivery("m1"))
    with pytest.raises(Rejected, match="t1 already belongs to another request") as caught:
        held_tasks.take_in(task_of(fingerprint="g"), delivery("m2", "r2"))
    assert caught.value.field == "task_id"
    assert receipts(held_tasks, held) == ["r1"]


def test_a_reference_joins_only_what_is_held(held_tasks):
    assert not held_tasks.join("t1", delivery("m1", "r1"))
    assert held_tasks.all() == []


def test_a_reference_does_not_join_a_task_that_came_in_its_message(held_tasks):
    held = held_tasks.take_in(task_of(by_reference=False), delivery("m1"))
    assert not held_tasks.join("t1", delivery("m2", "r2"))
    assert receipts(held_tasks, held) == ["r1"]


def test_a_delivery_that_was_dealt_with_is_forgotten_and_a_newer_one_is_not(held_tasks):
    held = held_tasks.take_in(task_of(), delivery("m1", "old"))
    seen = held_tasks.receipts(held)
    held_tasks.take_in(task_of(), delivery("m1", "new"))
    assert not held_tasks.acknowledge(held, seen)
    assert receipts(held_tasks, held) == ["new"]
    assert held_tasks.all() == [held]
    assert held_tasks.acknowledge(held, held_tasks.receipts(held))
    assert held_tasks.all() == []


def test_a_message_that_joined_meanwhile_keeps_the_task_held(held_tasks):
    held = held_tasks.take_in(task_of(), delivery("m1"))
    seen = held_tasks.receipts(held)
    held_tasks.join("t1", delivery("m2", "r2"))
    assert not held_tasks.acknowledge(held, seen)
    assert receipts(held_tasks, held) == ["r2"]


def test_an_old_holding_of_an_id_does_not_drop_the_new_one(held_tasks):
    first = held_tasks.take_in(task_of(), delivery("m1"))
    held_tasks.drop(first)
    assert held_tasks.receipts(first) == []
    second = held_tasks.take_in(task_of(), delivery("m2"))
    assert second is not first
    held_tasks.drop(first)
    assert held_tasks.acknowledge(first, [])
    assert held_tasks.all() == [second]


@pytest.fixture
def restless():
    """Threads take turns as often as they can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("restless")
def test_receipts_may_be_counted_while_others_join(held_tasks):
    held = held_tasks.take_in(task_of(), delivery("m0"))
    stop = threading.Event()
    failures: list[RuntimeError] = []

    def count() -> None:
        while not stop.is_set():
            try:
                assert held.receive_count >= 1
            except RuntimeError as error:
                failures.append(error)
                return

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    for n in range(3000):
        held_tasks.join("t1", delivery(f"m{n}", receive_count=n))
    stop.set()
    assert ended(counter)
    assert failures == []


# choosing


def test_the_task_that_suits_the_engine_is_picked_once(held_tasks):
    first, second = take_in(held_tasks, "a", checkpoint="x"), take_in(held_tasks, "b", checkpoint="y")
    assert held_tasks.pick(same, "y") is second
    assert second.state is State.PREPARING
    assert held_tasks.pick(same, "y") is first
    assert held_tasks.pick(same, "y") is None


def test_checkpoints_are_compared_by_the_engines_titles(held_tasks):
    take_in(held_tasks, "a", checkpoint="other")
    wanted = take_in(held_tasks, "b", checkpoint="xl")
    titles = {"xl": "xl.safetensors [31e35c80fc]", "other": "other.safetensors [1]"}
    assert held_tasks.pick(lambda name: titles[name], "xl.safetensors [31e35c80fc]") is wanted


def test_the_default_checkpoint_is_one_like_others(held_tasks):
    take_in(held_tasks, "a", checkpoint="xl")
    wanted = take_in(held_tasks, "b")
    assert held_tasks.pick(lambda name: name or "base", "base") is wanted


@pytest.mark.parametrize("state", [state for state in State if state is not State.WAITING])
def test_only_what_waits_is_picked(held_tasks, state):
    held_tasks.move(take_in(held_tasks, "a"), state)
    assert held_tasks.pick(same, None) is None


def test_one_choice_looks_at_a_bounded_number_of_tasks(held_tasks):
    for n in range(LOOK_AHEAD):
        take_in(held_tasks, f"a{n}", checkpoint="x")
    take_in(held_tasks, "b", checkpoint="y")
    assert held_tasks.pick(same, "y").task.task_id == "a0"


def test_threads_never_pick_the_same_task(held_tasks):
    tasks = [take_in(held_tasks, f"t{n}", checkpoint="xyz"[n % 3]) for n in range(400)]
    start = threading.Barrier(8)
    picked: list[list[Any]] = [[] for _ in range(8)]

    def work(mine: list[Any]) -> None:
        start.wait(10)
        while (held := held_tasks.pick(same, "y")) is not None:
            mine.append(held)

    threads = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in picked]
    for thread in threads:
        thread.start()
    assert all(ended(thread) for thread in threads)
    everything = [held.task.task_id for mine in picked for held in mine]
    assert sorted(everything) == sorted(held.task.task_id for held in tasks)
    assert {held.state for held in tasks} == {State.PREPARING}


def test_threads_never_take_the_same_task_from_its_state(held_tasks):
    for n in range(200):
        held = take_in(held_tasks, f"t{n}")
        start = threading.Barrier(2)
        got: list[bool] = []

        def take(new: State, held: Any = held, start: Any = start, got: list[bool] = got) -> None:
            start.wait(10)
            got.append(held_tasks.take(held, State.WAITING, new))

        threads = [threading.Thread(target=take, args=(s,), daemon=True) for s in (State.RETURNING, State.PREPARING)]
        for thread in threads:
            thread.start()
        assert all(ended(thread) for thread in threads)
        assert sorted(got) == [False, True]
        assert held.state in {State.RETURNING, State.PREPARING}


def test_while_more_comes_in_a_switch_waits_for_it_but_only_a_moment(held_tasks, clock):
    other = hold(held_tasks, task_of("a", checkpoint="x"), delivery(received_s=clock.monotonic()))
    held_tasks.deepening(is_so=True)
    assert held_tasks.pick(same, "y") is None
    assert other.state is State.WAITING
    loaded = hold(held_tasks, task_of("b", checkpoint="y"), delivery("m2", received_s=clock.monotonic()))
    assert held_tasks.pick(same, "y") is loaded
    clock.advance(DEEPEN_S)
    assert held_tasks.pick(same, "y") is other


def test_when_the_receive_is_over_the_switch_waits_no_longer(held_tasks, clock):
    other = hold(held_tasks, task_of("a", checkpoint="x"), delivery(received_s=clock.monotonic()))
    held_tasks.deepening(is_so=True)
    assert held_tasks.pick(same, "y") is None
    held_tasks.deepening(is_so=False)
    assert held_tasks.pick(same, "y") is other


# work in hand


def in_hand(held_tasks: HeldTasks, *loaded: str | None, pace: Pace | None = None):
    return held_tasks.in_hand(pace or Pace(), same, loaded or ["x"])


def test_nothing_in_hand(held_tasks):
    found = in_hand(held_tasks)
    assert (found.seconds, found.waiting, found.unstarted, found.is_mixed) == (0.0, 0, 0, False)


def test_the_work_in_hand_is_what_is_not_rendered_yet(held_tasks, clock):
    pace = Pace()
    pace.learn(2.0, 1.0, switched=False)  # two seconds for a step-megapixel
    for state in State:
        held = take_in(held_tasks, state.name, steps=3, width=1000, height=1000)
        held_tasks.move(held, state)
    found = in_hand(held_tasks, pace=pace)
    assert found.seconds == pytest.approx(4 * 6.0)  # waiting, preparing, ready, running
    assert (found.waiting, found.unstarted) == (1, len(UNSTARTED)) == (1, 3)
    clock.advance(4.0)
    assert in_hand(held_tasks, pace=pace).seconds == pytest.approx(4 * 6.0 - 4.0)  # the running one has come on
    clock.advance(100.0)
    assert in_hand(held_tasks, pace=pace).seconds == pytest.approx(3 * 6.0)  # late, but less than nothing is not left


def test_a_task_that_has_just_begun_has_all_its_work_left(held_tasks, clock):
    pace = Pace()
    pace.learn(40.0, 1.0, switched=False)
    held = take_in(held_tasks, "a", steps=1, width=1000, height=1000)
    held_tasks.move(held, State.READY)
    clock.advance(30.0)
    held_tasks.move(held, State.RUNNING)
    assert in_hand(held_tasks, pace=pace).seconds == pytest.approx(40.0)


def test_before_the_first_render_tasks_are_counted_and_no_seconds(held_tasks):
    take_in(held_tasks, "a")
    take_in(held_tasks, "b")
    found = in_hand(held_tasks)
    assert (found.seconds, found.waiting, found.unstarted) == (0.0, 2, 2)


@pytest.mark.parametrize(
    ("checkpoints", "loaded", "is_mixed"),
    [
        (["x", "x"], ["x"], False),
        (["x", "y"], ["x"], True),
        (["y"], ["x"], True),
        (["x"], ["x", "y"], True),
        ([], ["x"], False),
    ],
)
def test_work_is_mixed_when_an_engine_would_have_to_switch(held_tasks, checkpoints, loaded, is_mixed):
    for n, checkpoint in enumerate(checkpoints):
        take_in(held_tasks, f"t{n}", checkpoint=checkpoint)
    assert in_hand(held_tasks, *loaded).is_mixed is is_mixed


# waiting for changes

CHANGES = {
    "a task comes in": ("choice", lambda tasks, _held: take_in(tasks, "new")),
    "a task waits again": ("choice", lambda tasks, held: tasks.move(held, State.WAITING)),
    "a receive begins": ("choice", lambda tasks, _held: tasks.deepening(is_so=True)),
    "a task is picked": ("room", lambda tasks, _held: tasks.pick(same, "x")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_the_look_and_the_wait_is_not_slept_through(held_tasks, name):
    topic_name, change = CHANGES[name]
    topic = getattr(held_tasks, topic_name)
    held = take_in(held_tasks, "a")
    seen = topic.version
    change(held_tasks, held)
    waiter = threading.Thread(target=topic.wait, args=(seen, NEVER_S), daemon=True)
    waiter.start()
    assert ended(waiter)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_wakes_all_who_wait(held_tasks, name):
    topic_name, change = CHANGES[name]
    topic = getattr(held_tasks, topic_name)
    held = take_in(held_tasks, "a")
    waiters = [threading.Thread(target=topic.wait, args=(topic.version, NEVER_S), daemon=True) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    change(held_tasks, held)
    assert all(ended(waiter) for waiter in waiters)


def test_a_wait_ends_by_itself_when_nothing_changes(held_tasks):
    version = held_tasks.choice.version
    held_tasks.choice.wait(version, 0.0)
    assert held_tasks.choice.version == version


# telling


def test_everything_held_is_described_with_since_when_and_why(held_tasks, clock):
    running, waiting = take_in(held_tasks, "a"), take_in(held_tasks, "b")
    held_tasks.join("b", delivery("m2"))
    clock.advance(5.0)
    running.claim = Claim(task_id="a", owner="o", attempt=4, run_no=1, runs=2)
    running.progress = Progress(percent=40, step=8, eta_s=3)
    held_tasks.move(running, State.RUNNING)
    waiting.why = "S3 does not answer"
    clock.advance(2.5)
    described = held_tasks.describe()
    assert described == [
        {
            "task_id": "a",
            "state": "running",
            "why": "rendering",
            "held_s": 7.5,
            "in_state_s": 2.5,
            "messages": 1,
            "runs": 2,
            "progress": 40,
        },
        {
            "task_id": "b",
            "state": "waiting",
            "why": "S3 does not answer",
            "held_s": 7.5,
            "in_state_s": 7.5,
            "messages": 2,
            "runs": None,
            "progress": None,
        },
    ]
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("state", State)
def test_every_state_says_why_in_words(held_tasks, state):
    held_tasks.move(take_in(held_tasks, "a"), state)
    (described,) = held_tasks.describe()
    assert described["state"] == state.name.lower()
    assert described["why"] == str(state)


def test_a_new_state_forgets_the_old_ones_reason(held_tasks):
    held = take_in(held_tasks, "a")
    held_tasks.move(held, State.PREPARING, "waiting for memory")
    assert held_tasks.describe()[0]["why"] == "waiting for memory"
    held_tasks.move(held, State.READY)
    assert held_tasks.describe()[0]["why"] == "next for the engine"
