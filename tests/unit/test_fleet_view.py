"""The fleet in words: what a pipe and a terminal show."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scheduler.autoscale.book import Book, Pause
from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member
from scheduler.autoscale.ports import QueueCounts, Registry
from scheduler.autoscale.protocol import Report, State, Worker
from scheduler.autoscale.report import FleetReport, report
from scheduler.cli.fleet_view import fleet_table, one_line, plain, spoken

NOW_S = 1_900_000_000.0


def seen(*workers: Worker, members: int = 1, book: Book | None = None, pause: Pause | None = None) -> FleetReport:
    there = tuple(Member(instance_id=f"i-{n}", life=Life.RUNNING, launched_s=NOW_S - 60) for n in range(members))
    return report(
        FleetView(condition=Condition.ACTIVE, target=members, members=there),
        Registry(workers=workers, unreadable={"i-odd": "it has no boot_id"}),
        QueueCounts(visible=3, delayed=0, in_flight=1),
        name="asg painters",
        book=book,
        pause=pause,
        now_s=NOW_S,
    )


def worker(name: str = "i-0", state: State = State.ACTIVE) -> Worker:
    return Worker(instance_id=name, boot_id="boot-1", state=state, report=Report(ready_s=NOW_S - 9, idle_s=3597.0))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (3597, "60 min"), (3540, "59 min"), (18000, "5.0 h"), (172800, "2.0 days")],
)
def test_times_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_a_line_of_a_watch_has_states_hold_and_reason() -> None:
    book = Book(capacity=2, reasons=("3 wait", "1 serves"), hold="all are busy")
    line = one_line(seen(worker(), worker("i-1", State.DRAIN), members=3, book=book))
    assert line.endswith("workers: active 1 booting 1 drain 1 unreadable 1; held: all are busy; 3 wait")
    paused = one_line(seen(worker(), book=book, pause=Pause(until_s=NOW_S + 3540, by="ann", why="load")))
    assert "; paused by ann for 59 min more: load; 3 wait" in paused
    assert "held" not in paused


def test_a_pause_that_is_over_holds_nothing_although_nothing_was_decided_since() -> None:
    pause = Pause(until_s=NOW_S - 1, by="ann")
    assert seen(book=Book(hold=pause.told), pause=pause).hold == ""
    assert seen(book=Book(hold="all are busy"), pause=pause).hold == "all are busy"


def test_who_has_ended_is_not_shown_as_on_its_way() -> None:
    ended, ending = seen(worker("i-9", State.TERM)), seen(worker("i-0", State.TERM))
    assert [line.state for line in ended.workers] == ["booting", "ended", "unreadable"]
    assert [line.state for line in ending.workers] == ["term", "unreadable"]


def test_a_terminal_and_a_pipe_show_the_same() -> None:
    found = seen(worker(), pause=Pause(until_s=NOW_S + 600, by="ann", why="load"))
    page = io.StringIO()
    Console(file=page, width=200).print(fleet_table(found))
    for text in (page.getvalue(), "\n".join(plain(found))):
        for told in ("asg painters", "paused by ann for 10 min more: load", "60 min", "it has no boot_id"):
            assert told in text
    assert "workers report every 10 s" in page.getvalue()
