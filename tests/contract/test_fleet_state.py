"""The fleet's registry and its decision item: one suite over the table in moto,
in ministack, and the fake in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aws_servers import NOWHERE, Cloud, one_attempt_client
from fakes import FakeClock
from fakes.fleet_state import FakeFleetState
from fleet_tables import fleet_table

from scheduler.autoscale import protocol
from scheduler.autoscale.book import Batch, Book, Pause, Published
from scheduler.autoscale.ports import FleetState
from scheduler.autoscale.protocol import Report, State, Worker
from scheduler.autoscale.snapshot import Snapshot
from scheduler.autoscale.state_table import DynamoFleetState
from scheduler.domain.errors import Unavailable

NOW_S = 1_900_000_000.25
REPORT = Report(running=1, waiting=2, waiting_s=12.5, received=9, finished=6, busy_s=61.25, ready_s=NOW_S)
SNAPSHOT = Snapshot(
    at_s=NOW_S,
    visible=7,
    in_flight=2,
    running=1,
    target=2,
    serving=1,
    booting_s=(12.0, 30.5),
    service_s=20.5,
    boot_s=180.0,
    max_capacity=4,
)


@pytest.fixture(params=["fake", "moto", "ministack"])
def make(request) -> Iterator[Callable[[], FleetState]]:
    """Two calls give two views of the same fleet."""
    if request.param == "fake":
        fake = FakeFleetState()
        yield lambda: fake
        return
    cloud: Cloud = request.getfixturevalue(request.param)
    table = fleet_table(cloud)
    yield lambda: DynamoFleetState(cloud.clients.dynamodb, table, "asg/painters", clock=FakeClock(NOW_S))


@pytest.fixture
def state(make) -> FleetState:
    return make()


def entered(state: FleetState, instance_id: str = "i-1", boot_id: str = "boot-1") -> Worker:
    change = protocol.register(state.worker(instance_id), instance_id=instance_id, boot_id=boot_id, now_s=NOW_S)
    assert change is not None
    return applied(state, change)


def stored(state: Any) -> dict[str, Any]:
    """The attributes of the one record there is, as the store has them."""
    if isinstance(state, FakeFleetState):
        return state.records["i-1"]
    (item,) = state._client.scan(TableName=state._table)["Items"]
    return item


def applied(state: FleetState, change: protocol.Change) -> Worker:
    written = state.change(change)
    assert written.is_applied
    assert written.worker is not None
    return written.worker


def refused(state: FleetState, change: protocol.Change) -> Worker | None:
    written = state.change(change)
    assert not written.is_applied
    return written.worker


# the registry


def test_a_worker_is_entered_and_read_back(state):
    assert state.worker("i-1") is None
    worker = entered(state)
    assert worker == Worker(instance_id="i-1", boot_id="boot-1", state=State.ACTIVE, since_s=NOW_S, registered_s=NOW_S)
    assert state.worker("i-1") == worker
    assert list(state.registry().workers) == [worker]


def test_a_heartbeat_brings_its_report_and_returns_the_record_as_it_stands(state):
    worker = entered(state)
    beaten = applied(state, protocol.beat(worker, REPORT, now_s=NOW_S + 10))
    assert beaten == replace(worker, beat=1, report=REPORT)
    drained = applied(state, protocol.drain(beaten, why="2 are enough", now_s=NOW_S + 11))
    assert applied(state, protocol.beat(worker, REPORT, now_s=NOW_S + 20)) == replace(drained, beat=2)


def test_a_heartbeat_creates_nothing(state):
    ghost = Worker(instance_id="i-9", boot_id="boot-1", state=State.ACTIVE)
    assert refused(state, protocol.beat(ghost, REPORT, now_s=NOW_S)) is None
    assert state.worker("i-9") is None


def test_the_whole_way_out(state):
    worker = applied(state, protocol.drain(entered(state), why="idle", now_s=NOW_S + 1))
    assert (worker.state, worker.drain_no, worker.why) == (State.DRAIN, 1, "idle")
    worker = applied(state, protocol.consent(worker, now_s=NOW_S + 2))
    worker = applied(state, protocol.terminate(worker, now_s=NOW_S + 3))
    assert (worker.state, worker.since_s) == (State.TERM, NOW_S + 3)
    assert refused(state, protocol.beat(worker, REPORT, now_s=NOW_S + 4)) == worker
    worker = applied(state, protocol.gone(worker, now_s=NOW_S + 5, keep_s=60))
    assert [one.state for one in state.registry().workers] == [State.GONE]
    again = entered(state, boot_id="boot-2")
    assert (again.state, again.drain_no, again.boot_id) == (State.ACTIVE, 1, "boot-2")
    assert again.report == Report(), "what the boot before reported is not its own"
    assert "expires_at" not in stored(state), "or the table would drop one that works"


def test_a_drain_is_taken_back_by_the_worker_alone(state):
    drain = applied(state, protocol.drain(entered(state), why="idle", now_s=NOW_S + 1))
    recalled = applied(state, protocol.recall(drain))
    assert recalled.is_recalled
    assert recalled.state is State.DRAIN
    resumed = applied(state, protocol.resume(recalled, now_s=NOW_S + 2))
    assert resumed.state is State.ACTIVE
    assert refused(state, protocol.consent(recalled, now_s=NOW_S + 3)) == resumed


def test_a_write_decided_on_an_earlier_drain_is_refused_with_the_record(state):
    first = applied(state, protocol.drain(entered(state), why="idle", now_s=NOW_S))
    resumed = applied(state, protocol.resume(applied(state, protocol.recall(first)), now_s=NOW_S + 1))
    second = applied(state, protocol.drain(resumed, why="idle again", now_s=NOW_S + 2))
    assert refused(state, protocol.consent(first, now_s=NOW_S + 3)) == second


def test_a_write_that_is_sent_twice_is_applied_once_and_a_success_both_times(state):
    drain = protocol.drain(entered(state), why="idle", now_s=NOW_S + 1)
    first = applied(state, drain)
    if isinstance(state, DynamoFleetState):  # the fake is never sent anything twice
        assert applied(state, drain) == first


def test_one_that_beats_is_not_written_off(state):
    worker = entered(state)
    bury = protocol.bury(worker, why="silent", now_s=NOW_S + 900)
    beaten = applied(state, protocol.beat(worker, REPORT, now_s=NOW_S + 899))
    assert refused(state, bury) == beaten
    buried = applied(state, protocol.bury(beaten, why="silent", now_s=NOW_S + 901))
    assert (buried.state, buried.dead, buried.replace) == (State.TERM, True, True)


def test_a_late_boot_finds_that_it_was_written_off(state):
    applied(state, protocol.disown("i-1", why="it never reported", now_s=NOW_S))
    found = state.worker("i-1")
    assert found is not None
    assert protocol.register(found, instance_id="i-1", boot_id="boot-1", now_s=NOW_S) is None
    assert protocol.duty(found, boot_id="boot-1", is_idle=True, now_s=NOW_S).ends


def test_of_two_that_drain_at_once_one_does(make):
    worker = entered(make())
    changes = [protocol.drain(worker, why=f"leader {number}", now_s=NOW_S + number) for number in range(8)]
    won: list[bool] = []
    threads = [
        threading.Thread(target=lambda change=change: won.append(make().change(change).is_applied))
        for change in changes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]
    found = make().worker("i-1")
    assert found is not None
    assert found.drain_no == 1


def test_many_workers_are_all_read(state):
    for number in range(40):
        entered(state, instance_id=f"i-{number:02}")
    assert [worker.instance_id for worker in state.registry().workers] == [f"i-{number:02}" for number in range(40)]


def test_a_record_that_is_half_there_is_told_apart_and_hides_nobody(state):
    entered(state, "i-1")
    half = protocol.Change(instance_id="i-2", sets={"instance_id": "i-2", "state": State.ACTIVE}, expects_none=True)
    with pytest.raises(Unavailable):
        state.change(half)
    registry = state.registry()
    assert [worker.instance_id for worker in registry.workers] == ["i-1"]
    assert list(registry.unreadable) == ["i-2"]
    with pytest.raises(Unavailable):
        state.worker("i-2")


# the decision item


def book(**more: Any) -> Book:
    whole: dict[str, Any] = {
        "version": 1,
        "leader": "i-1",
        "written_s": NOW_S,
        "policy": "backlog",
        "policy_state": {"flow": 0.25, "levels": [1, 2]},
        "capacity": 3,
        "reasons": ("7 wait", "1 serves"),
        "snapshot": SNAPSHOT,
        "batch": Batch(instance_ids=("i-1", "i-2"), before=4, after=2),
        "settings_no": 3,
    }
    return Book(**whole | more)


def test_the_decision_is_read_back_whole(state):
    assert state.book() is None
    assert state.write_book(book(), seen=None)
    assert state.book() == book()
    assert state.write_book(book(version=2, batch=None, snapshot=None), seen=1)
    assert state.book() == book(version=2, batch=None, snapshot=None)


def test_only_who_saw_the_last_version_writes(state):
    assert state.write_book(book(), seen=None)
    assert not state.write_book(book(leader="i-2"), seen=None)
    assert state.write_book(book(version=2), seen=1)
    assert not state.write_book(book(version=2, leader="i-2"), seen=1)
    found = state.book()
    assert found is not None
    assert found.leader == "i-1"


def test_the_same_write_sent_twice_succeeds_twice(state):
    assert state.write_book(book(), seen=None)
    assert state.write_book(book(), seen=None)


def test_of_many_that_write_at_once_one_leads(make):
    won: list[str] = []

    def lead(name: str) -> None:
        if make().write_book(book(leader=name), seen=None):
            won.append(name)

    threads = [threading.Thread(target=lead, args=(f"i-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = make().book()
    assert found is not None
    assert won == [found.leader]


def test_decisions_are_kept_and_the_newest_come_first(state):
    for version in range(1, 13):
        state.keep(book(version=version))
    assert [kept.version for kept in state.history(3)] == [12, 11, 10]
    assert state.history(1)[0].snapshot == SNAPSHOT
    assert state.worker("i-1") is None


def test_settings_are_published_by_who_saw_the_last(state):
    assert state.published() is None
    first = Published(version=1, modified_s=NOW_S, by="i-1", values={"policy": "backlog", "steps": "10:1"})
    assert state.publish(first, seen=None)
    assert state.publish(first, seen=None), "sent twice, it succeeds twice"
    assert state.published() == first
    second = replace(first, version=2, by="i-2")
    assert not state.publish(second, seen=None)
    assert state.publish(second, seen=1)
    assert state.published() == second


def test_the_pause_asked_for_last_holds(state):
    assert state.pause() is None
    pause = Pause(until_s=NOW_S + 3600, by="ann", why="a load test")
    state.set_pause(pause)
    assert state.pause() == pause
    over = replace(pause, until_s=NOW_S)
    state.set_pause(over)
    assert state.pause() == over


def test_a_table_that_does_not_answer_is_unavailable():
    with one_attempt_client("dynamodb", NOWHERE) as client:
        state = DynamoFleetState(client, "fleet", "asg/painters", clock=FakeClock())
        worker = Worker(instance_id="i-1", boot_id="boot-1", state=State.ACTIVE)
        calls: list[Callable[[], object]] = [
            lambda: state.change(protocol.beat(worker, REPORT, now_s=NOW_S)),
            lambda: state.worker("i-1"),
            state.registry,
            state.book,
            lambda: state.write_book(book(), seen=None),
            lambda: state.keep(book()),
            lambda: state.history(3),
            state.pause,
            lambda: state.set_pause(Pause(until_s=NOW_S, by="ann")),
        ]
        for call in calls:
            with pytest.raises(Unavailable):
                call()
