"""Decisions as a fleet kept them, read back and put beside what other policies would have wanted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from scheduler.autoscale.book import Book
from scheduler.autoscale.policies.idle_stop import IdleStop
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot
from scheduler.cli import fleet
from scheduler.domain.errors import ConfigError
from scheduler.simulate.replay import read_decisions, replay

SNAPSHOT = Snapshot(
    at_s=1000.0,
    visible=8,
    in_flight=2,
    running=2,
    target=3,
    serving=2,
    booting_s=(12.5,),
    service_s=20.0,
    boot_s=180.0,
    max_capacity=6,
)


def line(snapshot: dict[str, Any] | None = None, **others: Any) -> dict[str, Any]:
    decision = {"capacity": 3, "policy": "backlog", "reasons": ["8 wait"], "hold": ""}
    told = dataclasses.asdict(SNAPSHOT) if snapshot is None else snapshot
    return {"at_s": 1000.5, "leader": "i-1", "snapshot": told, "decision": decision} | others


@pytest.fixture
def kept(tmp_path):
    def write(*lines: Any) -> Path:
        path = tmp_path / "why.jsonl"
        path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
        return path

    return write


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_decisions(path)
    return [problem.removeprefix(str(path)) for problem in caught.value.problems]


def test_what_fleet_why_prints_is_read(kept):
    book = Book(written_s=1000.5, leader="i-1", capacity=3, policy="backlog", reasons=("8 wait",), snapshot=SNAPSHOT)
    [found] = read_decisions(kept(json.dumps(fleet._decision(book))))
    assert found.snapshot == SNAPSHOT
    assert (found.at_s, found.capacity, found.policy, found.reasons, found.hold) == (
        1000.5,
        3,
        "backlog",
        ("8 wait",),
        "",
    )


def test_the_oldest_comes_first_and_empty_lines_are_passed_over(kept):
    path = kept(line(at_s=20.0), "", line(at_s=10.0))
    assert [one.at_s for one in read_decisions(path)] == [10.0, 20.0]


def test_fields_of_a_later_version_are_passed_over_and_later_ones_may_be_missing(kept):
    told = dataclasses.asdict(SNAPSHOT) | {"of_tomorrow": "x"}
    del told["delayed"]
    [found] = read_decisions(kept(line(told)))
    assert found.snapshot == SNAPSHOT


class Remembers:
    """Wants one more each time that it is asked."""

    name = "remembers"

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        count = state.get("count", 0) + 1
        return Decision(capacity=count, reasons=(f"asked {count} times",), state={"count": count})


def test_each_policy_remembers_its_own_and_is_not_asked_without_a_snapshot(kept):
    unread = line(at_s=2.0) | {"snapshot": None}
    decisions = read_decisions(kept(line(at_s=1.0), unread, line(at_s=3.0)))
    replayed = replay(decisions, [Remembers(), Remembers()])
    assert [[wanted and wanted.capacity for wanted in one.wanted] for one in replayed] == [[1, 1], [None, None], [2, 2]]


def test_the_real_policies_decide_as_they_would_have(kept):
    [replayed] = replay(read_decisions(kept(line())), [Threshold(), IdleStop()])
    assert [wanted and wanted.capacity for wanted in replayed.wanted] == [4, 1]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("{", ":1: no JSON ("),
        ("[1]", ":1: no decision: expected a line that"),
        (line({"at_s": 1.0}), ":1: snapshot.visible is missing"),
        (line(dataclasses.asdict(SNAPSHOT) | {"visible": "8"}), ":1: snapshot.visible is '8'"),
        (line(dataclasses.asdict(SNAPSHOT) | {"booting_s": ["x"]}), ":1: snapshot.booting_s is ['x']"),
        (line() | {"decision": {}}, ":1: capacity is missing"),
        ("", ": holds no decision: expected lines that `sd-scheduler fleet why --json` printed"),
    ],
)
def test_what_is_no_decision_is_told_with_its_line(kept, told, said):
    [found] = problems(kept(told))
    assert found.startswith(said)
    assert "fleet why --json" in found


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert problems(tmp_path / "none") == [": cannot be read: No such file or directory"]
