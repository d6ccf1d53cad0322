"""What the leader learns from the workers' reports, and what a policy is told of the fleet."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from scheduler.autoscale import census
from scheduler.autoscale.book import Batch, Book
from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member
from scheduler.autoscale.ports import QueueCounts
from scheduler.autoscale.protocol import Report, State, Worker
from scheduler.autoscale.report import explained
from scheduler.autoscale.snapshot import Snapshot
from scheduler.autoscale.state_records import book_of
from scheduler.autoscale.survey import Bounds, Drains, Growth, snapshot

NOW_S = 1_900_000_000.0


def worker(name: str = "i-1", *, state: State = State.ACTIVE, boot_id: str = "boot-1", **report: Any) -> Worker:
    told = Report(**{"ready_s": NOW_S - 50} | report)
    return Worker(instance_id=name, boot_id=boot_id, state=state, registered_s=NOW_S - 60, report=told)


def view(*names: str, launched_s: float = NOW_S - 200) -> FleetView:
    members = tuple(Member(instance_id=name, life=Life.RUNNING, launched_s=launched_s) for name in names)
    return FleetView(condition=Condition.ACTIVE, target=len(names), members=members)


def test_what_workers_did_before_the_first_look_is_not_counted():
    book = Growth().learn(Book(received_total=5), [worker(received=90, finished=80, busy_s=800.0)], view("i-1"))
    assert (book.received_total, book.finished_total, book.service_s) == (5, 0, Book().service_s)


def test_what_they_do_from_then_on_is():
    growth = Growth()
    book = growth.learn(Book(), [worker(received=90, finished=80)], view("i-1"))
    book = growth.learn(book, [worker(received=93, finished=82), worker("i-2", received=4)], view("i-1", "i-2"))
    assert (book.received_total, book.finished_total) == (7, 2)
    book = growth.learn(book, [worker("i-2", received=9)], view("i-2"))
    assert book.received_total == 12, "one that left takes nothing away"


def test_a_daemon_that_was_started_anew_counts_from_nothing():
    growth = Growth()
    book = growth.learn(Book(), [worker(received=90)], view("i-1"))
    book = growth.learn(book, [worker(received=2)], view("i-1"))
    assert book.received_total == 2


def test_service_time_follows_what_is_measured():
    growth = Growth()
    book = growth.learn(Book(service_s=20.0), [worker()], view("i-1"))
    for number in range(1, 120):
        book = growth.learn(book, [worker(finished=number, busy_s=number * 5.0)], view("i-1"))
    assert 5.0 < book.service_s < 5.1


def test_boot_time_is_learned_from_those_whose_readiness_was_seen_to_come():
    growth = Growth()
    book = growth.learn(Book(boot_s=180.0), [], view("i-1"))
    book = growth.learn(book, [worker(ready_s=None)], view("i-1"))
    assert book.boot_s == 180.0
    book = growth.learn(book, [worker(ready_s=NOW_S - 120)], view("i-1", launched_s=NOW_S - 200))
    assert 80 < book.boot_s < 180
    assert growth.learn(book, [worker(ready_s=NOW_S - 120)], view("i-1")).boot_s == book.boot_s


def test_what_was_never_measured_is_told_as_assumed():
    bare = Book(snapshot=told_of(Book()))
    line = "\n".join(explained(bare))
    assert "a task takes 20.0 s (assumed), a boot 180 s (assumed)" in line
    growth = Growth()
    book = growth.learn(bare, [worker(ready_s=None)], view("i-1"))
    book = growth.learn(book, [worker(ready_s=NOW_S - 100, finished=3, busy_s=30.0)], view("i-1"))
    line = "\n".join(explained(replace(book, snapshot=told_of(book))))
    assert "a task takes 18.6 s (a guess and 3 measured), a boot 156 s (a guess and 1 measured)" in line


def told_of(book: Book) -> Snapshot:
    counts = QueueCounts(visible=1, delayed=0, in_flight=0)
    bounds = Bounds(min_capacity=0, max_capacity=4)
    return snapshot(census.Census(), view("i-1"), counts, book, bounds, now_s=NOW_S)


def test_a_new_leader_learns_nothing_from_those_who_were_there_before():
    book = Growth().learn(Book(boot_s=180.0), [worker(ready_s=NOW_S - 199)], view("i-1"))
    assert book.boot_s == 180.0


def test_a_policy_is_told_of_everyone_once():
    workers = [
        worker("i-serving", running=1, waiting=2),
        worker("i-unready", ready_s=None),
        worker("i-leaving", state=State.DRAIN, running=1),
        worker("i-ending", state=State.TERM),
        worker("i-silent", running=1),
    ]
    shown = view(*(each.instance_id for each in workers), "i-booting")
    found = census.take(shown, workers, {"i-silent": 61.0}, now_s=NOW_S)
    counts = QueueCounts(visible=7, delayed=1, in_flight=9)
    told = snapshot(found, shown, counts, Book(), Bounds(min_capacity=1, max_capacity=8), now_s=NOW_S)
    assert (told.serving, told.draining, told.booting_s, told.target) == (1, 3, (200.0, 200.0), 6)
    assert (told.running, told.held_waiting, told.busy, told.waiting) == (3, 2, 7, 10)
    assert told.unlaunched == 0


def test_work_just_sent_counts_although_the_queue_does_not_show_it_yet():
    found = census.take(view(), [], {}, now_s=NOW_S)
    counts = QueueCounts(visible=0, delayed=0, in_flight=0)
    told = snapshot(found, view(), counts, Book(), Bounds(min_capacity=0, max_capacity=8), now_s=NOW_S, sent=3)
    assert told.visible == 3


def test_an_instance_that_boots_again_is_another_worker():
    growth = Growth()
    book = growth.learn(Book(), [worker(received=10)], view("i-1"))
    book = growth.learn(book, [replace(worker(received=3), boot_id="boot-2")], view("i-1"))
    assert book.received_total == 3


def test_a_drain_lasts_from_being_asked_to_consent_and_is_told_once():
    drains = Drains()
    asked = replace(worker(state=State.DRAIN), drain_no=1, since_s=NOW_S)
    consented = replace(asked, state=State.DRAINED, since_s=NOW_S + 12)
    assert drains.ended([asked]) == ()
    assert drains.ended([consented]) == (12.0,)
    assert drains.ended([consented]) == ()
    assert drains.ended([replace(consented, drain_no=2)]) == (), "one whose beginning was not seen"


def test_what_a_fleet_keeps_at_least_or_most_is_a_bound():
    group = replace(view("i-1"), min_size=2, max_size=5)
    assert Bounds(min_capacity=0, max_capacity=9).within(group) == Bounds(min_capacity=2, max_capacity=5)
    assert Bounds(min_capacity=3, max_capacity=4).within(group) == Bounds(min_capacity=3, max_capacity=4)
    assert Bounds(min_capacity=0, max_capacity=1).within(group) == Bounds(min_capacity=2, max_capacity=2)


def test_a_decision_of_a_later_version_can_be_read_by_this_one():
    book = Book(version=3, snapshot=told_of(Book()), batch=Batch(instance_ids=("i-1",), before=2, after=1))
    item = book.to_json()
    later = item | {"moon": "full", "snapshot": item["snapshot"] | {"tide": 1}, "batch": item["batch"] | {"omen": "x"}}
    assert book_of({"item": "decision", "version": 3, "body": json.dumps(later)}) == book


def test_one_whose_record_could_not_be_read_for_a_while_is_not_counted_twice():
    growth = Growth()
    book = growth.learn(Book(), [worker(received=90)], view("i-1"))
    book = growth.learn(book, [], view("i-1"), unreadable={"i-1"})
    book = growth.learn(book, [worker(received=93)], view("i-1", launched_s=NOW_S - 999))
    assert (book.received_total, book.boot_s) == (3, Book().boot_s)


def test_an_instance_that_runs_for_days_teaches_nothing_about_boots():
    growth = Growth()
    old = view("i-1", launched_s=NOW_S - 5 * 86400)
    book = growth.learn(Book(boot_s=180.0), [worker(ready_s=None)], old)
    assert growth.learn(book, [worker(ready_s=NOW_S)], old).boot_s == 180.0
