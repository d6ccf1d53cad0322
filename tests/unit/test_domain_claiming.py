"""Why a claim was refused, and what goes before what when a record gives several reasons."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.claiming import Refusal, judge, wait_elsewhere_s
from scheduler.domain.retry import MAX_BACKOFF_S
from scheduler.domain.task import Format, Message, Task, TaskType

NOW = 1_900_000_000.0
SENT = NOW - 60
OURS, THEIRS = "nonce-of-this-claim", "nonce-of-another"
TASK = Task(task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint="f1")
EKS = Task(task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint="f1", format=Format.EKS_V1ALPHA2)
REFERENCE = Task(
    task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint="", format=Format.PREDECESSOR, by_reference=True
)

MESSAGE = Message(queue=0, message_id="m-1", receipt="r", body="", sent_at_s=SENT, receive_count=1, received_s=0.0)


def judged(record: dict[str, Any] | None, task: Task = TASK) -> Refusal:
    return judge(record, task=task, message=MESSAGE, owner=OURS, now=NOW, max_runs=3)


def record(**attributes: Any) -> dict[str, Any]:
    return {"task_id": "t", "fingerprint": "f1", **attributes}


def running(until_s: float = NOW + 20, **more: Any) -> dict[str, Any]:
    return record(status="processing", owner=THEIRS, lease_until=Decimal(str(until_s)), **more)


TABLE = {
    "our own claim, sent before": (running() | {"owner": OURS}, Refusal.OURS),
    "our own claim, its lease over": (running(NOW - 5) | {"owner": OURS}, Refusal.OURS),
    "our own claim, cancelled since": (running(cancel_requested=True) | {"owner": OURS}, Refusal.OURS),
    "our own claim, the last run": (running(runs=3) | {"owner": OURS}, Refusal.OURS),
    "completed": (record(status="completed"), Refusal.DUPLICATE),
    "completed after the message was sent": (record(status="completed", finished_at=SENT + 1), Refusal.DUPLICATE),
    "completed before the message was sent": (record(status="completed", finished_at=SENT - 1), Refusal.DUPLICATE),
    "cancelled": (record(status="cancelled", finished_at=SENT - 1), Refusal.DUPLICATE),
    "failed after the message was sent": (record(status="failed", finished_at=Decimal(SENT + 1)), Refusal.DUPLICATE),
    "failed as the message was sent": (record(status="failed", finished_at=SENT), Refusal.DUPLICATE),
    "failed before the message was sent": (record(status="failed", finished_at=Decimal(SENT - 1)), Refusal.RESENT),
    "failed, its runs spent, sent again": (record(status="failed", finished_at=SENT - 1, runs=3), Refusal.RESENT),
    "failed, cancelled too late, sent again": (
        record(status="failed", finished_at=SENT - 1, cancel_requested=True),
        Refusal.RESENT,
    ),
    "running elsewhere": (running(), Refusal.ELSEWHERE),
    "running elsewhere, to be cancelled": (running(cancel_requested=True), Refusal.ELSEWHERE),
    "running elsewhere for the last time": (running(runs=3), Refusal.ELSEWHERE),
    "its holder's lease just over": (running(NOW), Refusal.CHANGED),
    "its holder dead": (running(NOW - 1, runs=2), Refusal.CHANGED),
    "its holder dead, to be cancelled": (running(NOW - 1, cancel_requested=True), Refusal.CANCELLED),
    "its holder dead at the last run": (running(NOW - 1, runs=Decimal(3)), Refusal.EXHAUSTED),
    "its holder dead at the last run, to be cancelled": (
        running(NOW - 1, runs=3, cancel_requested=True),
        Refusal.CANCELLED,
    ),
    "waiting": (record(status="pending"), Refusal.CHANGED),
    "waiting, not cancelled after all": (record(status="pending", cancel_requested=False), Refusal.CHANGED),
    "waiting, to be cancelled": (record(status="pending", cancel_requested=True), Refusal.CANCELLED),
    "waiting, its runs spent": (record(status="pending", runs=4), Refusal.EXHAUSTED),
    "another request": (record(status="pending", fingerprint="f2"), Refusal.CONFLICT),
    "another request, completed": (record(status="completed", fingerprint="f2"), Refusal.CONFLICT),
    "another request, failed before": (
        record(status="failed", fingerprint="f2", finished_at=SENT - 1),
        Refusal.CONFLICT,
    ),
    "another request, running": (running(fingerprint="f2"), Refusal.CONFLICT),
    "a status that we never write": (record(status="paused"), Refusal.CONFLICT),
    "a claim that we never write": (record(status="processing", owner=THEIRS), Refusal.CONFLICT),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_refusal_is_read_from_the_record(name):
    found, expected = TABLE[name]
    assert judged(found) is expected


def eks(**attributes: Any) -> dict[str, Any]:
    return record(format="eks-v1alpha1", message_id="m-0") | attributes


REUSED = {
    "ended for another message": (eks(status="completed"), Refusal.REUSED),
    "failed for another message": (eks(status="failed", finished_at=SENT + 1), Refusal.REUSED),
    "cancelled, another message": (eks(status="cancelled"), Refusal.REUSED),
    "ended for another message, another request": (eks(status="completed", fingerprint="f2"), Refusal.REUSED),
    "ended for another message, runs spent": (eks(status="failed", runs=3), Refusal.REUSED),
    "ended for another message, after this one": (
        eks(status="completed", earlier_messages=["m-2", "m-1"]),
        Refusal.DUPLICATE,
    ),
    "messages that we never write": (eks(status="completed", earlier_messages=7), Refusal.REUSED),
    "ended for this message": (eks(status="completed", message_id="m-1"), Refusal.DUPLICATE),
    "failed for this message": (eks(status="failed", message_id="m-1", finished_at=SENT - 1), Refusal.DUPLICATE),
    "ended for this message, another request": (
        eks(status="completed", message_id="m-1", fingerprint="f2"),
        Refusal.DUPLICATE,
    ),
    "running for another message": (eks(**running()), Refusal.ELSEWHERE),
    "running for another message, another request": (eks(**running(fingerprint="f2")), Refusal.CONFLICT),
    "waiting for another message": (eks(status="pending"), Refusal.CHANGED),
    "waiting for another message, another request": (eks(status="pending", fingerprint="f2"), Refusal.CONFLICT),
    "our own claim": (eks(**running()) | {"owner": OURS}, Refusal.OURS),
    "ended, of another format": (record(status="completed"), Refusal.DUPLICATE),
    "ended, of another format and request": (record(status="completed", fingerprint="f2"), Refusal.CONFLICT),
    "ended, of the job API": (eks(status="completed", format="job-api", fingerprint="f2"), Refusal.CONFLICT),
    "a message's id that we never write": (eks(status="completed", message_id=7), Refusal.CONFLICT),
    "cancelled before any claim, this sent later": (
        record(format="eks-v1alpha2", status="cancelled", finished_at=SENT - 1),
        Refusal.REUSED,
    ),
    "cancelled before any claim, this sent before": (
        record(format="eks-v1alpha2", status="cancelled", finished_at=SENT + 1),
        Refusal.DUPLICATE,
    ),
}


@pytest.mark.parametrize("name", REUSED)
def test_an_id_that_comes_again_is_a_new_run_once_the_task_has_its_end(name):
    found, expected = REUSED[name]
    assert judged(found, EKS) is expected


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_an_id_of_our_own_format_never_comes_again(status):
    assert judged(eks(status=status, finished_at=SENT + 1)) is Refusal.DUPLICATE
    assert judged(eks(status=status, finished_at=SENT + 1, fingerprint="f2")) is Refusal.CONFLICT


def test_copies_of_one_message_are_told_by_the_id_that_sns_gave_it():
    for sns_id, expected in (("sns-1", Refusal.DUPLICATE), ("sns-2", Refusal.REUSED), (None, Refusal.REUSED)):
        copy = dataclasses.replace(MESSAGE, sns_id=sns_id)
        ended = eks(status="completed", message_id="sns-1")
        assert judge(ended, task=EKS, message=copy, owner=OURS, now=NOW, max_runs=3) is expected


def test_the_tables_show_every_refusal_but_that_of_a_missing_record():
    shown = {expected for _, expected in [*TABLE.values(), *REUSED.values()]}
    assert shown == set(Refusal) - {Refusal.MISSING}


def test_without_a_record_a_reference_is_missing_and_a_whole_message_may_try_again():
    assert judged(None, REFERENCE) is Refusal.MISSING
    assert judged(None, TASK) is Refusal.CHANGED


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"taskStatus": "waiting"}, Refusal.CHANGED),
        ({"taskStatus": "finished"}, Refusal.DUPLICATE),
        ({}, Refusal.CHANGED),
        ({"taskStatus": "waiting", "status": "processing", "owner": THEIRS, "lease_until": NOW + 1}, Refusal.ELSEWHERE),
        ({"taskStatus": "finished", "status": "completed"}, Refusal.DUPLICATE),
        ({"taskStatus": "finished", "status": "failed", "finished_at": SENT - 1}, Refusal.RESENT),
        ({"taskStatus": "finished", "status": "failed", "finished_at": SENT + 1}, Refusal.DUPLICATE),
        ({"fingerprint": "f1"}, Refusal.CONFLICT),
    ],
)
def test_a_record_of_the_predecessor_is_judged_by_its_own_status_until_it_has_ours(attributes, expected):
    assert judged({"taskId": "t", "requestData": "{}", **attributes}, REFERENCE) is expected


# What goes before what: each reason as the attributes that bring it about, in the order of precedence. Where two hold
# at once, the earlier decides.
REASONS: list[tuple[Refusal, dict[str, Any]]] = [
    (Refusal.CONFLICT, {"fingerprint": "f2"}),
    (Refusal.ELSEWHERE, {"lease_until": NOW + 1}),
    (Refusal.CANCELLED, {"cancel_requested": True}),
    (Refusal.EXHAUSTED, {"runs": 3}),
]


@pytest.mark.parametrize(("first", "second"), list(combinations(REASONS, 2)), ids=lambda reason: reason[0].value)
def test_of_two_reasons_the_weightier_decides(first, second):
    dead = running(NOW - 1)
    assert judged(dead | second[1]) is second[0]
    assert judged(dead | second[1] | first[1]) is first[0]


records = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["pending", "processing", "completed", "failed", "cancelled", "paused"]),
        "owner": st.sampled_from([OURS, THEIRS]),
        "fingerprint": st.sampled_from(["f1", "f2"]),
        "lease_until": st.decimals(NOW - 100, NOW + 100, places=3),
        "finished_at": st.decimals(SENT - 100, NOW, places=3),
        "runs": st.integers(0, 5).map(Decimal),
        "cancel_requested": st.booleans(),
        "taskStatus": st.sampled_from(["waiting", "finished"]),
    },
)


@given(records)
def test_the_promises_hold_for_any_record(found):
    refusal = judged(found)
    status = found.get("status")
    if refusal is Refusal.RESENT:  # only a failure may be undone
        assert status == "failed"
    if refusal in {Refusal.CANCELLED, Refusal.EXHAUSTED, Refusal.CHANGED}:  # these write on the record
        assert status in {None, "pending", "processing"}
        assert found.get("fingerprint", "f1") == "f1"
        assert not (status == "processing" and found["lease_until"] > NOW)
    if refusal is Refusal.DUPLICATE:  # this deletes the message
        assert status in {"completed", "failed", "cancelled"} or found["taskStatus"] == "finished"
    if refusal is Refusal.OURS:
        assert (found["owner"], status) == (OURS, "processing")


@pytest.mark.parametrize(
    ("found", "receive_count", "expected"),
    [
        ({"lease_until": NOW + 20}, 1, 20),
        ({"lease_until": Decimal(str(NOW + 20)), "eta_s": Decimal(90)}, 1, 90),
        ({"lease_until": NOW + 20, "eta_s": 5}, 1, 20),
        ({"lease_until": NOW + 20}, 2, 40),
        ({"lease_until": NOW + 20}, 4, 160),
        ({"lease_until": NOW + 20}, 5, 300),
        ({"lease_until": NOW - 20}, 1, 1),
        ({}, 1, 1),
        ({"lease_until": NOW + 20, "eta_s": 10_000}, 1, 300),
        ({"lease_until": NOW + 11, "eta_s": 10_000}, 9, 11),  # less than half: its holder is probably dead
    ],
)
def test_a_duplicate_stays_away_for_the_lease_or_the_expected_end_and_longer_each_time(found, receive_count, expected):
    assert wait_elsewhere_s(found, now=NOW, lease_s=24, receive_count=receive_count) == pytest.approx(expected)


@given(records, st.integers(0, 10**6), st.none() | st.integers(-10, 10**9))
def test_a_duplicate_never_stays_away_for_longer_than_five_minutes(found, receive_count, eta_s):
    found = found if eta_s is None else found | {"eta_s": eta_s}
    waits = wait_elsewhere_s(found, now=NOW, lease_s=60, receive_count=receive_count)
    assert (
        1.0 <= waits <= wait_elsewhere_s(found, now=NOW, lease_s=60, receive_count=receive_count + 1) <= MAX_BACKOFF_S
    )
    assert waits >= min(MAX_BACKOFF_S, float(found.get("lease_until", NOW)) - NOW)
