"""The claim and the ends of a task: one suite over the table in moto, in ministack, and the fake in memory."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Protocol

import pytest
from aws_servers import NOWHERE, Cloud, one_attempt_client
from fakes import FakeClock, FakeTaskStore
from fakes.endpoint import denying

from scheduler.domain.claiming import Refusal, Refused
from scheduler.domain.ends import CANCELLED, read_end
from scheduler.domain.errors import AccessDenied, Counts, LeaseLost, Unavailable, Unstorable
from scheduler.domain.ports import TaskStore
from scheduler.domain.task import (
    Claim,
    Failure,
    Format,
    Message,
    Progress,
    Result,
    StoredImage,
    Task,
    TaskType,
    Timings,
    fingerprint,
)
from scheduler.stores.expressions import decode, encode
from scheduler.stores.record_table import discover_key_name
from scheduler.stores.submitted_tasks import SubmittedTasks
from scheduler.stores.tasks import INDEX, DynamoTaskStore

LEASE_S = 30.0
DAY_S = 86400
PREDECESSOR_REQUEST = '{"api": "/sdapi/v1/txt2img", "payload": {"prompt": "a fox, 狐狸", "steps": 20}}'
FAILURE = Failure(kind="rejected", message="steps must be at least 1", field="payload.steps", engine="422: steps")
IMAGE = StoredImage(
    key="tasks/0d5f9c1e-8a52-4b60-9d0a-5a3f7e7c1b11/1.png",
    media_type="image/png",
    size_bytes=412_345,
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    width=512,
    height=768,
    seed=1234567890,
)
RESULT = Result(
    images=(IMAGE,),
    timings=Timings(queued_ms=1200, prepare_ms=15, generate_ms=2345, store_ms=87),
    checkpoint="dreamshaper_8.safetensors [879db523c3]",
    sampler="DPM++ 2M",
)


class Submitting(Protocol):
    """What those who submit and cancel call."""

    def create(self, task: Task, *, job_type: str) -> bool: ...

    def request_cancel(self, task_id: str, *, unseen: bool = False) -> str: ...


class Records:
    """A store under test, and its records as anybody else sees and writes them."""

    def __init__(self, cloud: Cloud | None, clock: FakeClock, key_name: str, max_runs: int) -> None:
        self.clock = clock
        self.key_name = key_name
        self.cloud = cloud
        self.store: TaskStore
        self.submitted: Submitting
        if cloud is None:
            self.fake = FakeTaskStore(clock, max_runs=max_runs, key_name=key_name)
            self.store = self.submitted = self.fake
        else:
            self.table = cloud.table(key_name=key_name)
            self.store = DynamoTaskStore(
                cloud.clients.dynamodb,
                cloud.clients.keeper_dynamodb,
                self.table,
                key_name=key_name,
                clock=clock,
                address="s3://pictures/{}".format,
                worker="worker-1",
                max_runs=max_runs,
                record_ttl_days=90,
            )
            self.submitted = SubmittedTasks(
                cloud.clients.dynamodb, self.table, key_name=key_name, clock=clock, record_ttl_days=90
            )

    def get(self, task_id: str = "task-1") -> dict[str, Any]:
        """Return the record, every number an int or a float; it must be there."""
        found = self.find(task_id)
        assert found is not None
        return found

    def find(self, task_id: str = "task-1") -> dict[str, Any] | None:
        if self.cloud is None:
            return self.fake.record(task_id)
        found = typed_item(self.cloud, self.table, self.key_name, task_id)
        return None if found is None else {name: _plain(value) for name, value in decode(found).items()}

    def put(self, **attributes: Any) -> None:
        if self.cloud is None:
            self.fake.put_record(attributes)
        else:
            item = {name: encode(value) for name, value in attributes.items()}
            self.cloud.clients.dynamodb.put_item(TableName=self.table, Item=item)

    def claim(self, task: Task | None = None, *, owner: str = "nonce-1", **message: Any) -> Claim | Refused:
        return self.store.claim(task or own_task(), self.message(**message), owner=owner, lease_s=LEASE_S)

    def claimed(self, task: Task | None = None, *, owner: str = "nonce-1", **message: Any) -> Claim:
        claim = self.claim(task, owner=owner, **message)
        assert isinstance(claim, Claim), claim
        return claim

    def refused(self, task: Task | None = None, *, owner: str = "nonce-2", **message: Any) -> Refusal:
        answer = self.claim(task, owner=owner, **message)
        assert isinstance(answer, Refused), answer
        return answer.reason

    def message(
        self, *, age_s: float = 5.0, receive_count: int = 1, message_id: str = "message-1", sns_id: str | None = None
    ) -> Message:
        return Message(
            queue=0,
            message_id=message_id,
            sns_id=sns_id,
            receipt="receipt-1",
            body="{}",
            sent_at_s=self.clock.now() - age_s,
            receive_count=receive_count,
            received_s=self.clock.monotonic(),
        )


def typed_item(cloud: Cloud, table: str, key_name: str, task_id: str) -> dict[str, dict[str, Any]] | None:
    answer: Any = cloud.clients.dynamodb.get_item(TableName=table, Key={key_name: {"S": task_id}}, ConsistentRead=True)
    item: dict[str, dict[str, Any]] | None = answer.get("Item")
    return item


class RealRecords(Records):
    """The real adapter only, for what is said on the wire."""

    cloud: Cloud

    def __init__(self, cloud: Cloud, clock: FakeClock) -> None:
        super().__init__(cloud, clock, "task_id", 3)

    def bytes(self, task_id: str) -> int:
        item = typed_item(self.cloud, self.table, "task_id", task_id)
        assert item is not None
        return item_bytes(item)


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return int(value) if value == int(value) else float(value)
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def own_task(task_id: str = "task-1", **payload: Any) -> Task:
    payload = payload or {"prompt": "a fox", "steps": 20}
    request = {"task_type": "txt2img", "payload": payload}
    return Task(task_id=task_id, task_type=TaskType.TXT2IMG, payload=payload, fingerprint=fingerprint(request))


def eks_task(task_id: str = "task-1", *, form: Format = Format.EKS_V1ALPHA2, **changes: Any) -> Task:
    payload = changes.pop("payload", {"prompt": "a fox", "steps": 20})
    print_of = fingerprint({"content": payload})
    told: dict[str, Any] = {"task_type": TaskType.TXT2IMG, "runtime": "sdwebui", "context": {"order": 7}} | changes
    return Task(task_id=task_id, payload=payload, fingerprint=print_of, format=form, **told)


def job_task(task_id: str = "task-1") -> Task:
    return Task(
        task_id=task_id,
        task_type=TaskType.PIPELINE,
        payload={"seed": 7},
        fingerprint="f",
        format=Format.JOB_API,
        api_path="/api/v1/camera-angle/jobs",
    )


def their_task(task_id: str = "task-1") -> Task:
    return Task(
        task_id=task_id,
        task_type=TaskType.TXT2IMG,
        payload={"prompt": "a fox, 狐狸", "steps": 20},
        fingerprint="",
        format=Format.PREDECESSOR,
        by_reference=True,
    )


MakeRecords = Callable[..., Records]


@pytest.fixture(params=["fake", "moto", "ministack"])
def make(request: pytest.FixtureRequest, clock: FakeClock) -> MakeRecords:
    cloud = None if request.param == "fake" else request.getfixturevalue(request.param)

    def make_records(*, key_name: str = "task_id", max_runs: int = 3) -> Records:
        return Records(cloud, clock, key_name, max_runs)

    return make_records


@pytest.fixture
def records(make: MakeRecords) -> Records:
    return make()


@pytest.fixture
def theirs(make: MakeRecords) -> Records:
    """A predecessor's table with one waiting record."""
    made = make(key_name="taskId")
    made.put(
        taskId="task-1",
        requestData=PREDECESSOR_REQUEST,
        taskStatus="waiting",
        submitTime="2026-11-20T08:00:00.123Z",
    )
    return made


@pytest.fixture(params=["moto", "ministack"])
def real(request: pytest.FixtureRequest, clock: FakeClock) -> RealRecords:
    return RealRecords(request.getfixturevalue(request.param), clock)


# claiming


def test_first_claim_creates_the_record(records: Records) -> None:
    claim = records.claimed(age_s=5.0)
    now = records.clock.now()

    assert claim == Claim(task_id="task-1", owner="nonce-1", attempt=1, run_no=1, runs=1)
    assert records.get() == {
        "task_id": "task-1",
        "status": "processing",
        "owner": "nonce-1",
        "attempt": 1,
        "runs": 1,
        "run_no": 1,
        "lease_until": now + LEASE_S,
        "created_at": int(now - 5.0),
        "updated_at": int(now),
        "fingerprint": own_task().fingerprint,
        "job_type": "txt2img",
        "worker": "worker-1",
    }


def test_claim_keeps_the_runtime_that_the_message_named(records: Records) -> None:
    task = own_task()
    named = Task(task_id="task-1", task_type=task.task_type, payload=task.payload, fingerprint="f", runtime="sdwebui")
    records.claimed(named)
    assert records.get()["runtime"] == "sdwebui"


def test_claim_of_a_submitted_task_keeps_when_it_was_created(records: Records) -> None:
    assert records.submitted.create(own_task(), job_type="txt2img")
    created_at = records.get()["created_at"]
    records.clock.advance(100)
    records.claimed()
    assert records.get()["created_at"] == created_at


def test_reference_to_an_absent_record_creates_nothing(make: MakeRecords) -> None:
    records = make(key_name="taskId")
    answer = records.claim(their_task())
    assert answer == Refused(Refusal.MISSING, None)
    assert records.find() is None


@pytest.mark.parametrize("before", ["absent", "waiting reference", "lapsed", "failed", "ended for another message"])
def test_of_racing_claims_exactly_one_wins(make: MakeRecords, before: str) -> None:
    by_reference = before == "waiting reference"
    records = make(key_name="taskId" if by_reference else "task_id")
    for n in range(3):
        is_eks = before == "ended for another message"
        task = (their_task if by_reference else eks_task if is_eks else own_task)(f"task-{n}")
        if by_reference:
            records.put(taskId=task.task_id, requestData=PREDECESSOR_REQUEST, taskStatus="waiting")
        elif before == "lapsed":
            records.claimed(task, owner="dead")
            records.clock.advance(LEASE_S)
        elif before == "failed":
            records.store.fail(records.claimed(task, owner="failed"), task, FAILURE)
            records.clock.advance(60)  # the messages of the race are sent after the failure
        elif is_eks:
            end_of(records, "completed", task, sns_id="sns-0")
        answers = _race(records, task, 6)

        winners = [answer for answer in answers if isinstance(answer, Claim)]
        losers = [answer.reason for answer in answers if isinstance(answer, Refused)]
        assert len(winners) == 1
        assert losers == [Refusal.ELSEWHERE] * 5
        record = records.get(task.task_id)
        assert (record["owner"], record["attempt"]) == (winners[0].owner, winners[0].attempt)
        assert record["runs"] == winners[0].runs == (2 if before == "lapsed" else 1)


def _race(records: Records, task: Task, many: int) -> list[Claim | Refused]:
    gate = threading.Barrier(many)
    answers: list[Claim | Refused] = []

    def claim(owner: str) -> None:
        gate.wait(10)
        answers.append(records.claim(task, owner=owner))

    threads = [threading.Thread(target=claim, args=(f"nonce-{n}",)) for n in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == many
    return answers


def test_claim_sent_twice_is_one_claim(records: Records) -> None:
    first = records.claimed()
    assert records.claimed() == first
    assert records.get()["runs"] == 1


def test_claim_whose_answer_was_lost_holds(make: MakeRecords) -> None:
    """As `insist` does: the same nonce again, after an answer that never came."""
    records = make()
    first = records.claimed(owner="nonce-1")
    records.clock.advance(LEASE_S / 2)
    assert records.refused(owner="nonce-2") is Refusal.ELSEWHERE
    assert records.claimed(owner="nonce-1") == first


def test_claim_that_is_found_to_be_ours_lasts_a_whole_lease_from_then(records: Records) -> None:
    """Its holder counts from the call that was answered, so others must not count from the one that was not."""
    first = records.claimed()
    records.clock.advance(LEASE_S - 1)
    assert records.claimed() == first
    records.clock.advance(LEASE_S - 1)
    assert records.refused(owner="nonce-2") is Refusal.ELSEWHERE


def test_own_claim_that_lapsed_unheard_of_is_claimed_anew(records: Records) -> None:
    first = records.claimed()
    records.clock.advance(LEASE_S)
    again = records.claimed()
    assert again.attempt == first.attempt + 1
    assert records.get()["lease_until"] == records.clock.now() + LEASE_S


def test_live_lease_refuses_others_and_shows_its_record(records: Records) -> None:
    records.claimed()
    records.clock.advance(LEASE_S - 0.001)
    answer = records.claim(owner="nonce-2")
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.ELSEWHERE
    assert answer.record is not None
    assert float(answer.record["lease_until"]) == pytest.approx(records.clock.now() + 0.001, abs=0.0005)
    assert records.get()["owner"] == "nonce-1"


def test_lapsed_lease_is_taken_over_and_its_holder_fenced_off(records: Records) -> None:
    old = records.claimed(owner="old")
    records.clock.advance(LEASE_S)
    new = records.claimed(owner="new")
    assert (new.attempt, new.runs) == (2, 2)

    before = records.get()
    with pytest.raises(LeaseLost):
        records.store.renew(old, lease_s=LEASE_S, progress=None)
    with pytest.raises(LeaseLost):
        records.store.complete(old, own_task(), RESULT)
    with pytest.raises(LeaseLost):
        records.store.fail(old, own_task(), FAILURE)
    with pytest.raises(LeaseLost):
        records.store.cancelled(old, own_task())
    with pytest.raises(LeaseLost):
        records.store.release(old, counts=Counts.NOTHING)
    assert records.get() == before


def test_the_fence_holds_even_if_a_nonce_came_twice(records: Records) -> None:
    old = records.claimed(owner="same")
    records.clock.advance(LEASE_S)
    records.claimed(owner="same")
    with pytest.raises(LeaseLost):
        records.store.complete(old, own_task(), RESULT)


@pytest.mark.parametrize("call", ["renew", "complete", "fail", "cancelled", "release"])
def test_lease_that_ran_out_but_was_not_taken_is_still_the_holders(records: Records, call: str) -> None:
    claim, task = records.claimed(), own_task()
    records.clock.advance(LEASE_S * 100)
    match call:
        case "renew":
            assert records.store.renew(claim, lease_s=LEASE_S, progress=None) is False
        case "complete":
            records.store.complete(claim, task, RESULT)
        case "fail":
            records.store.fail(claim, task, FAILURE)
        case "cancelled":
            records.store.cancelled(claim, task)
        case _:
            records.store.release(claim, counts=Counts.NOTHING)
    statuses = {"renew": "processing", "complete": "completed", "fail": "failed", "release": "pending"}
    assert records.get()["status"] == statuses.get(call, "cancelled")


@pytest.mark.parametrize("status", ["completed", "cancelled"])
@pytest.mark.parametrize("age_s", [5.0, -5.0])
def test_final_record_makes_every_message_a_duplicate(records: Records, status: str, age_s: float) -> None:
    claim = records.claimed()
    if status == "completed":
        records.store.complete(claim, own_task(), RESULT)
    else:
        records.store.cancelled(claim, own_task())
    before = records.get()
    assert records.refused(age_s=age_s) is Refusal.DUPLICATE
    assert records.get() == before


def test_message_sent_before_the_failure_is_a_duplicate(records: Records) -> None:
    records.store.fail(records.claimed(), own_task(), FAILURE)
    before = records.get()
    assert records.refused(age_s=0.0) is Refusal.DUPLICATE
    assert records.refused(age_s=60.0) is Refusal.DUPLICATE
    assert records.get() == before


def test_message_sent_after_the_failure_starts_anew(records: Records) -> None:
    for owner in ("first", "second"):
        claim = records.claimed(owner=owner)
        records.store.release(claim, counts=Counts.TRY if owner == "first" else Counts.RUN)
    records.store.fail(records.claimed(owner="third"), own_task(), FAILURE)
    records.clock.advance(10)

    claim = records.claimed(owner="fourth", age_s=5.0)
    assert claim == Claim(task_id="task-1", owner="fourth", attempt=4, run_no=1, runs=1)
    record = records.get()
    assert record["status"] == "processing"
    gone = {"error", "error_message", "finished_at", "tries", "first_try_at", "expires_at"}
    assert not gone & set(record)


def test_claim_for_a_message_sent_again_can_itself_be_sent_twice(records: Records) -> None:
    records.store.fail(records.claimed(), own_task(), FAILURE)
    records.clock.advance(10)
    first = records.claimed(owner="again")
    assert records.claimed(owner="again") == first


def test_cancellation_that_came_too_late_does_not_cancel_the_task_sent_again(records: Records) -> None:
    claim = records.claimed()
    records.submitted.request_cancel("task-1")
    records.store.fail(claim, own_task(), FAILURE)
    records.clock.advance(10)
    again = records.claimed(owner="again")
    assert records.store.renew(again, lease_s=LEASE_S, progress=None) is False


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed", "cancelled"])
def test_id_of_another_request_is_a_conflict_and_changes_nothing(records: Records, status: str) -> None:
    task, other = own_task(), own_task(prompt="a hound", steps=20)
    claim = records.claimed(task)
    match status:
        case "pending":
            records.store.release(claim, counts=Counts.NOTHING)
        case "completed":
            records.store.complete(claim, task, RESULT)
        case "failed":
            records.store.fail(claim, task, FAILURE)
        case "cancelled":
            records.store.cancelled(claim, task)
    records.clock.advance(LEASE_S * 2)  # so that the lease is no reason to refuse, and the message is newer

    before = records.get()
    assert records.refused(other, age_s=0.0) is Refusal.CONFLICT
    assert records.get() == before


@pytest.mark.parametrize("theirs", [{"status": "archived"}, {"status": "processing", "owner": "somebody"}])
def test_record_that_no_worker_wrote_is_a_conflict_and_left_alone(records: Records, theirs: dict[str, str]) -> None:
    records.put(task_id="task-1", **theirs)
    before = records.get()
    assert records.refused() is Refusal.CONFLICT
    assert records.store.close_unclaimed("task-1", before, "failed", FAILURE) is False
    assert records.get() == before


def test_runs_that_are_spent_refuse_the_next(make: MakeRecords) -> None:
    records = make(max_runs=2)
    for owner in ("first", "second"):
        records.claimed(owner=owner)
        records.clock.advance(LEASE_S)
    before = records.get()
    answer = records.claim(owner="third")
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.EXHAUSTED
    assert answer.record is not None
    assert int(answer.record["runs"]) == 2
    assert records.get() == before


# renewing


def test_renewal_extends_the_lease_and_writes_progress(records: Records) -> None:
    claim = records.claimed()
    before = records.get()
    records.clock.advance(10)
    progress = Progress(percent=40, step=8, eta_s=12)
    assert records.store.renew(claim, lease_s=LEASE_S, progress=progress) is False
    record = records.get()
    assert (record["progress"], record["step"], record["eta_s"]) == (40, 8, 12)
    assert record["lease_until"] == records.clock.now() + LEASE_S
    for name in before.keys() - {"lease_until"}:
        assert record[name] == before[name], name
    records.clock.advance(LEASE_S - 1)
    assert records.refused() is Refusal.ELSEWHERE


def test_renewal_without_progress_keeps_what_was_written(records: Records) -> None:
    claim = records.claimed()
    records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=40, step=8, eta_s=12))
    records.store.renew(claim, lease_s=LEASE_S, progress=None)
    assert records.get()["progress"] == 40


def test_each_of_many_renewals_tells_whether_cancellation_was_asked_for(records: Records) -> None:
    claim = records.claimed()
    for _ in range(3):
        records.clock.advance(5)
        assert records.store.renew(claim, lease_s=LEASE_S, progress=None) is False
    assert records.submitted.request_cancel("task-1") == "processing"
    for percent in (50, 60):
        records.clock.advance(5)
        told = records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=percent, step=1, eta_s=1))
        assert told is True
        record = records.get()
        assert record["lease_until"] == records.clock.now() + LEASE_S
        assert record["progress"] == percent


@pytest.mark.parametrize("end", ["release", "complete"])
def test_renewal_after_the_holders_own_end_finds_nothing_held(records: Records, end: str) -> None:
    claim = records.claimed()
    if end == "release":
        records.store.release(claim, counts=Counts.NOTHING)
    else:
        records.store.complete(claim, own_task(), RESULT)
    before = records.get()
    with pytest.raises(LeaseLost):
        records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=99, step=1, eta_s=0))
    assert records.get() == before


def test_renewal_of_a_record_that_was_deleted_finds_nothing_and_makes_nothing(records: Records) -> None:
    ghost = Claim(task_id="gone", owner="nonce-1", attempt=1, run_no=1, runs=1)
    with pytest.raises(LeaseLost):
        records.store.renew(ghost, lease_s=LEASE_S, progress=None)
    with pytest.raises(LeaseLost):
        records.store.complete(ghost, own_task("gone"), RESULT)
    assert records.find("gone") is None


def test_renewals_send_and_bring_little_and_leave_the_index_alone(real: RealRecords) -> None:
    """A write bills the index too when it sets an attribute that the index holds, even to the same value."""
    big = "x" * 50_000
    claim = real.claimed()
    real.put(**real.get(), requestData=big)
    client = real.cloud.clients.keeper_dynamodb
    sent: list[dict[str, Any]] = []
    brought: list[int] = []
    client.meta.events.register(
        "before-call.dynamodb.UpdateItem", lambda params, **_: sent.append(json.loads(params["body"])), "see-sent"
    )
    client.meta.events.register(
        "after-call.dynamodb.UpdateItem", lambda http_response, **_: brought.append(len(http_response.content)), "see"
    )
    try:
        for percent in (10, 20):
            real.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=percent, step=1, eta_s=1))
    finally:
        client.meta.events.unregister("before-call.dynamodb.UpdateItem", unique_id="see-sent")
        client.meta.events.unregister("after-call.dynamodb.UpdateItem", unique_id="see")

    assert len(sent) == len(brought) == 2
    assert max(brought) < 300
    for body in sent:
        assert len(json.dumps(body)) < 2000
        written = {body["ExpressionAttributeNames"][name] for name in re.findall(r"#\w+", body["UpdateExpression"])}
        assert written == {"lease_until", "progress", "step", "eta_s"}


def test_index_finds_tasks_by_status_and_shows_keys_only(real: RealRecords) -> None:
    claim = real.claimed()
    real.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=10, step=1, eta_s=1))
    found = real.cloud.clients.dynamodb.query(
        TableName=real.table,
        IndexName=INDEX,
        KeyConditionExpression="#s = :s",
        ExpressionAttributeNames={"#s": "status"},
        ExpressionAttributeValues={":s": {"S": "processing"}},
    )["Items"]
    assert [set(item) for item in found] == [{"task_id", "status", "created_at"}]


# releasing


@pytest.mark.parametrize(
    ("counts", "runs", "tries"), [(Counts.NOTHING, 0, None), (Counts.RUN, 1, None), (Counts.TRY, 0, 1)]
)
def test_release_costs_what_it_says(records: Records, counts: Counts, runs: int, tries: int | None) -> None:
    claim = records.claimed()
    records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=40, step=8, eta_s=12))
    records.store.release(claim, counts=counts)
    record = records.get()
    assert record["status"] == "pending"
    assert (record["runs"], record.get("tries")) == (runs, tries)
    assert not {"lease_until", "progress", "step", "eta_s"} & set(record)

    following = records.claimed(owner="next")
    assert (following.attempt, following.runs, following.tries) == (2, runs + 1, tries or 0)


def test_release_sent_twice_refunds_once(records: Records) -> None:
    claim = records.claimed()
    for _ in range(2):
        records.store.release(claim, counts=Counts.TRY)
    record = records.get()
    assert (record["status"], record["runs"], record["tries"]) == ("pending", 0, 1)


def test_tries_add_up_since_the_first(records: Records) -> None:
    first_try_at = int(records.clock.now())
    for n in range(1, 4):
        records.store.release(records.claimed(owner=f"nonce-{n}"), counts=Counts.TRY)
        records.clock.advance(60)
    claim = records.claimed(owner="last")
    assert (claim.runs, claim.tries, claim.first_try_at_s) == (1, 3, float(first_try_at))


def test_release_after_the_end_is_refused(records: Records) -> None:
    claim = records.claimed()
    records.store.complete(claim, own_task(), RESULT)
    before = records.get()
    with pytest.raises(LeaseLost):
        records.store.release(claim, counts=Counts.NOTHING)
    assert records.get() == before


# ends


def test_completion_writes_the_whole_result(records: Records) -> None:
    claim = records.claimed()
    records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=40, step=8, eta_s=12))
    records.clock.advance(3)
    result = Result(
        images=(
            IMAGE,
            StoredImage(key="2.webp", media_type="image/webp", size_bytes=1, sha256="", width=1, height=2),
            StoredImage(key="3.mp4", media_type="video/mp4", size_bytes=2, sha256=""),
        ),
        timings=RESULT.timings,
        checkpoint=RESULT.checkpoint,
        sampler=RESULT.sampler,
        warnings=("image 2 is all black",),
    )
    records.store.complete(claim, own_task(), result)

    record, now = records.get(), records.clock.now()
    assert record["status"] == "completed"
    assert record["finished_at"] == now
    assert record["updated_at"] == int(now)
    assert now + 89 * DAY_S < record["expires_at"] <= now + 91 * DAY_S
    assert record["expires_at"] == int(record["expires_at"])
    assert record["images"] == [
        {
            "key": IMAGE.key,
            "media_type": "image/png",
            "bytes": 412_345,
            "sha256": IMAGE.sha256,
            "width": 512,
            "height": 768,
            "seed": 1234567890,
        },
        {"key": "2.webp", "media_type": "image/webp", "bytes": 1, "sha256": "", "width": 1, "height": 2},
        {"key": "3.mp4", "media_type": "video/mp4", "bytes": 2, "sha256": ""},
    ]
    times = ("queued_ms", "prepare_ms", "generate_ms", "store_ms")
    assert [record[name] for name in times] == [1200, 15, 2345, 87]
    assert (record["checkpoint"], record["sampler"]) == (RESULT.checkpoint, RESULT.sampler)
    assert (record["warnings"], record["worker"]) == (["image 2 is all black"], "worker-1")
    assert not {"lease_until", "progress", "step", "eta_s", "cancel_requested", "error"} & set(record)


def test_a_cost_is_recorded_to_the_hundred_millionth(records: Records) -> None:
    records.store.complete(
        records.claimed(), own_task(), dataclasses.replace(RESULT, gpu_cost_usd=Decimal("0.00012345"))
    )
    assert records.get()["gpu_cost_usd"] == pytest.approx(0.00012345, abs=1e-12)


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "closed"])
def test_nothing_of_a_dead_holders_run_shows_in_the_end(records: Records, end: str) -> None:
    dead = records.claimed(owner="dead")
    records.store.renew(dead, lease_s=LEASE_S, progress=Progress(percent=40, step=8, eta_s=12))
    records.clock.advance(LEASE_S)
    if end == "closed":
        assert records.store.close_unclaimed("task-1", records.get(), "failed", FAILURE)
    else:
        claim = records.claimed(owner="next")
        if end == "completed":
            records.store.complete(claim, own_task(), RESULT)
        elif end == "failed":
            records.store.fail(claim, own_task(), FAILURE)
        else:
            records.store.cancelled(claim, own_task())
    record = records.get()
    assert record["status"] == ("failed" if end == "closed" else end)
    assert not {"lease_until", "progress", "step", "eta_s", "cancel_requested"} & set(record)


def test_completion_sent_twice_is_one_completion(records: Records) -> None:
    claim = records.claimed()
    records.store.complete(claim, own_task(), RESULT)
    before = records.get()
    records.store.complete(claim, own_task(), RESULT)
    assert records.get() == before


def test_failure_says_why(records: Records) -> None:
    claim = records.claimed()
    records.store.fail(claim, own_task(), FAILURE)
    records.store.fail(claim, own_task(), FAILURE)
    record, now = records.get(), records.clock.now()
    assert (record["status"], record["finished_at"]) == ("failed", now)
    assert record["error"] == {
        "class": "rejected",
        "message": "steps must be at least 1",
        "field": "payload.steps",
        "engine": "422: steps",
    }
    assert record["error_message"] == "steps must be at least 1"
    assert record["expires_at"] > now + 89 * DAY_S
    assert "lease_until" not in record


def test_failure_without_field_or_engine_names_neither(records: Records) -> None:
    records.store.fail(records.claimed(), own_task(), Failure(kind="fatal", message="no GPU"))
    assert records.get()["error"] == {"class": "fatal", "message": "no GPU"}


def test_cancelled_end_is_final(records: Records) -> None:
    claim = records.claimed()
    records.submitted.request_cancel("task-1")
    records.store.cancelled(claim, own_task())
    record = records.get()
    assert record["status"] == "cancelled"
    assert record["expires_at"] > record["finished_at"] + 89 * DAY_S
    assert not {"lease_until", "cancel_requested"} & set(record)


def test_completion_that_wins_over_a_cancellation_stays_completed(records: Records) -> None:
    claim = records.claimed()
    records.submitted.request_cancel("task-1")
    records.store.complete(claim, own_task(), RESULT)
    assert records.get()["status"] == "completed"
    assert records.submitted.request_cancel("task-1") == "completed"
    assert records.get()["status"] == "completed"


def test_record_of_a_plain_task_is_under_a_kilobyte(real: RealRecords) -> None:
    task = own_task("0d5f9c1e-8a52-4b60-9d0a-5a3f7e7c1b11", prompt="a fox in the snow, " * 50)
    claim = real.claimed(task, owner="0123456789abcdef")
    progress = Progress(percent=95, step=19, eta_s=1)
    real.store.renew(claim, lease_s=LEASE_S, progress=progress)
    assert real.bytes(task.task_id) < 1024
    real.store.complete(claim, task, RESULT)
    assert real.bytes(task.task_id) < 1024


def item_bytes(item: dict[str, dict[str, Any]]) -> int:
    """Return what DynamoDB bills an item as: names and values, numbers by their digits, 3 bytes for a collection."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(typed: dict[str, Any]) -> int:
    kind, value = next(iter(typed.items()))
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            digits = value.lstrip("-").replace(".", "").strip("0")
            return (len(digits) + 1) // 2 + 1 + value.startswith("-")
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + value_bytes(inner) for inner in value)
        case "M":
            return 3 + sum(1 + len(name.encode()) + value_bytes(inner) for name, inner in value.items())
        case _:
            raise AssertionError(kind)


def test_size_rule_counts_as_the_documentation_does() -> None:
    item: dict[str, dict[str, Any]] = {
        "id": {"S": "é"},
        "n": {"N": "-1234"},
        "l": {"L": [{"M": {"k": {"BOOL": True}}}]},
    }
    assert item_bytes(item) == (2 + 2) + (1 + 4) + (1 + 3 + 1 + 3 + 1 + 1 + 1)


# cancelling and closing


def test_cancelling_a_submitted_task_ends_it_at_once(records: Records) -> None:
    records.submitted.create(own_task(), job_type="txt2img")
    assert records.submitted.request_cancel("task-1") == "cancelled"
    record = records.get()
    assert record["status"] == "cancelled"
    assert record["expires_at"] > record["finished_at"] + 89 * DAY_S
    assert records.refused() is Refusal.DUPLICATE
    assert records.submitted.request_cancel("task-1") == "cancelled"


def test_cancelling_a_released_task_fences_off_whoever_held_it(records: Records) -> None:
    claim = records.claimed()
    records.store.release(claim, counts=Counts.NOTHING)
    assert records.submitted.request_cancel("task-1") == "cancelled"
    with pytest.raises(LeaseLost):
        records.store.complete(claim, own_task(), RESULT)
    assert records.get()["status"] == "cancelled"


def test_cancelling_what_is_not_there(records: Records) -> None:
    assert records.submitted.request_cancel("nobody") == "missing"
    assert records.find("nobody") is None


@pytest.mark.parametrize("task", [own_task(), eks_task()], ids=["own", "eks"])
def test_a_task_that_nobody_has_seen_yet_can_be_cancelled_before_its_message_comes(
    records: Records, task: Task
) -> None:
    assert records.submitted.request_cancel("task-1", unseen=True) == "cancelled"
    assert records.refused(task, age_s=5.0) is Refusal.DUPLICATE
    assert {"status", "finished_at", "expires_at", "created_at"} <= set(records.get())
    assert records.submitted.request_cancel("task-1", unseen=True) == "cancelled"


def test_an_id_that_comes_again_after_it_was_cancelled_unseen_is_a_new_run(records: Records) -> None:
    records.submitted.request_cancel("task-1", unseen=True)
    records.clock.advance(60)
    assert records.claimed(eks_task(), sns_id="sns-2", age_s=1.0).run_no == 2


def test_cancelling_unseen_does_not_touch_what_is_there(records: Records) -> None:
    records.claimed(own_task())
    assert records.submitted.request_cancel("task-1", unseen=True) == "processing"


def test_cancelled_task_of_a_dead_holder_is_for_the_next_receiver_to_end(records: Records) -> None:
    holder = records.claimed()
    assert records.submitted.request_cancel("task-1") == "processing"
    assert records.refused() is Refusal.ELSEWHERE, "its holder may still write the end"
    records.clock.advance(LEASE_S)

    answer = records.claim(owner="nonce-2")
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.CANCELLED
    assert answer.record is not None
    assert records.store.close_unclaimed("task-1", answer.record, "cancelled", None) is True
    assert records.get()["status"] == "cancelled"
    assert "cancel_requested" not in records.get()
    with pytest.raises(LeaseLost):
        records.store.complete(holder, own_task(), RESULT)


def test_cancelled_task_that_was_released_is_not_run_again(records: Records) -> None:
    claim = records.claimed()
    records.submitted.request_cancel("task-1")
    records.store.release(claim, counts=Counts.NOTHING)
    assert records.refused() is Refusal.CANCELLED


def test_closing_an_exhausted_task_fences_off_its_last_holder(make: MakeRecords) -> None:
    records = make(max_runs=1)
    holder = records.claimed()
    records.clock.advance(LEASE_S)
    answer = records.claim(owner="nonce-2")
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.EXHAUSTED
    assert answer.record is not None

    failure = Failure(kind="exhausted", message="started once, never ended")
    assert records.store.close_unclaimed("task-1", answer.record, "failed", failure) is True
    before = records.get()
    assert (before["status"], before["error_message"]) == ("failed", "started once, never ended")
    with pytest.raises(LeaseLost):
        records.store.renew(holder, lease_s=LEASE_S, progress=None)
    with pytest.raises(LeaseLost):
        records.store.complete(holder, own_task(), RESULT)
    assert records.get() == before
    assert records.store.close_unclaimed("task-1", answer.record, "failed", failure) is False, "it has its end"


def test_nothing_is_closed_that_moved_on_since_it_was_read(records: Records) -> None:
    records.claimed(owner="first")
    records.clock.advance(LEASE_S)
    seen = records.get()
    records.claimed(owner="second")
    assert records.store.close_unclaimed("task-1", seen, "failed", FAILURE) is False
    records.clock.advance(LEASE_S)
    assert records.store.close_unclaimed("task-1", seen, "failed", FAILURE) is False, "another attempt was made"
    assert records.get()["status"] == "processing"


def test_nothing_is_closed_while_its_holder_lives(records: Records) -> None:
    records.claimed()
    seen = records.get()
    assert records.store.close_unclaimed("task-1", seen, "failed", FAILURE) is False
    assert records.get() == seen


def test_closing_an_absent_record_makes_none(records: Records) -> None:
    assert records.store.close_unclaimed("nobody", {}, "failed", FAILURE) is False
    assert records.find("nobody") is None


# submitting and reading


def test_create_writes_a_pending_record_once(records: Records) -> None:
    task, now = own_task(), int(records.clock.now())
    assert records.submitted.create(task, job_type="txt2img") is True
    assert records.get() == {
        "task_id": "task-1",
        "status": "pending",
        "fingerprint": task.fingerprint,
        "job_type": "txt2img",
        "created_at": now,
        "updated_at": now,
    }
    records.clock.advance(100)
    assert records.submitted.create(own_task(prompt="another"), job_type="txt2img") is False
    assert records.get()["created_at"] == now


def test_submitted_task_is_claimed_by_its_message(records: Records) -> None:
    records.submitted.create(own_task(), job_type="txt2img")
    assert records.claimed().attempt == 1
    assert records.get()["status"] == "processing"


def test_read_returns_what_is_there_by_id(records: Records) -> None:
    ids = [f"task-{n}" for n in range(12)]
    for task_id in ids[:10]:
        records.put(task_id=task_id, status="pending", runs=2)
    found = records.store.read([*ids, "task-1"])
    assert sorted(found) == sorted(ids[:10])
    assert {int(record["runs"]) for record in found.values()} == {2}
    assert records.store.read([]) == {}


# the predecessor's records


def test_claim_of_a_waiting_reference_keeps_what_its_clients_wrote(theirs: Records) -> None:
    claim = theirs.claimed(their_task())
    assert (claim.attempt, claim.runs) == (1, 1)
    record = theirs.get()
    assert record["requestData"] == PREDECESSOR_REQUEST
    assert (record["taskStatus"], record["status"]) == ("waiting", "processing")
    assert record["submitTime"] == "2026-11-20T08:00:00.123Z"
    assert not {"fingerprint", "job_type", "task_id"} & set(record)


def test_completion_tells_the_predecessors_clients_in_their_words(theirs: Records) -> None:
    claim = theirs.claimed(their_task())
    result = Result(images=(IMAGE, StoredImage(key="2.png", media_type="image/png", size_bytes=1, sha256="",
                                               width=1, height=1)))  # fmt: skip
    theirs.store.complete(claim, their_task(), result)
    record = theirs.get()
    assert (record["taskStatus"], record["status"]) == ("finished", "completed")
    first, second = f"s3://pictures/{IMAGE.key}", "s3://pictures/2.png"
    assert record["processRes"] == f'{{"cnt": 2, "images": ["{first}", "{second}"], "error": ""}}'
    ended = dt.datetime.fromisoformat(record["processTime"])
    assert ended.tzinfo is None
    assert ended.timestamp() == pytest.approx(theirs.clock.now(), abs=0.001)
    assert record["requestData"] == PREDECESSOR_REQUEST
    assert record["taskId"] == "task-1"


def test_failure_ends_the_predecessors_clients_polling(theirs: Records) -> None:
    theirs.store.fail(theirs.claimed(their_task()), their_task(), FAILURE)
    record = theirs.get()
    assert (record["taskStatus"], record["status"]) == ("finished", "failed")
    assert json.loads(record["processRes"]) == {"cnt": 0, "images": [], "error": "steps must be at least 1"}
    assert record["requestData"] == PREDECESSOR_REQUEST
    assert theirs.refused(their_task()) is Refusal.DUPLICATE


def test_cancellation_ends_the_predecessors_clients_polling(theirs: Records) -> None:
    assert theirs.submitted.request_cancel("task-1") == "cancelled"
    record = theirs.get()
    assert record["taskStatus"] == "finished"
    assert json.loads(record["processRes"]) == {"cnt": 0, "images": [], "error": "cancelled"}
    assert theirs.refused(their_task()) is Refusal.DUPLICATE


def test_reference_sent_again_after_its_failure_waits_again(theirs: Records) -> None:
    theirs.store.fail(theirs.claimed(their_task()), their_task(), FAILURE)
    theirs.clock.advance(10)
    claim = theirs.claimed(their_task(), owner="again", age_s=1.0)
    assert (claim.attempt, claim.runs) == (2, 1)
    record = theirs.get()
    assert (record["taskStatus"], record["requestData"]) == ("waiting", PREDECESSOR_REQUEST)
    assert not {"processRes", "processTime"} & set(record)


def test_record_that_the_predecessor_finished_is_a_duplicate(make: MakeRecords) -> None:
    records = make(key_name="taskId")
    records.put(taskId="task-1", requestData=PREDECESSOR_REQUEST, taskStatus="finished", processRes="{}")
    before = records.get()
    assert records.refused(their_task()) is Refusal.DUPLICATE
    assert records.submitted.request_cancel("task-1") == "completed"
    assert records.get() == before


def test_bad_reference_is_closed_so_that_its_clients_stop_polling(make: MakeRecords) -> None:
    records = make(key_name="taskId")
    records.put(taskId="task-1", requestData="not json", taskStatus="waiting")
    seen = records.store.read(["task-1"])["task-1"]
    assert records.store.close_unclaimed("task-1", seen, "failed", FAILURE) is True
    record = records.get()
    assert (record["taskStatus"], record["requestData"]) == ("finished", "not json")
    assert json.loads(record["processRes"])["error"] == "steps must be at least 1"


def test_own_task_gets_none_of_the_predecessors_words(make: MakeRecords) -> None:
    for end in ("complete", "fail", "cancelled"):
        records = make()
        claim = records.claimed()
        if end == "complete":
            records.store.complete(claim, own_task(), RESULT)
        elif end == "fail":
            records.store.fail(claim, own_task(), FAILURE)
        else:
            records.store.cancelled(claim, own_task())
        assert not {"taskStatus", "processRes", "processTime", "requestData"} & set(records.get())


def test_own_task_works_in_a_table_with_the_predecessors_key(make: MakeRecords) -> None:
    records = make(key_name="taskId")
    records.store.complete(records.claimed(), own_task(), RESULT)
    record = records.get()
    assert (record["taskId"], record["status"]) == ("task-1", "completed")
    assert not {"task_id", "taskStatus", "processRes"} & set(record)


# ids that come again


def test_claim_keeps_the_message_that_its_run_belongs_to(records: Records) -> None:
    records.claimed(eks_task(), sns_id="sns-1")
    record = records.get()
    assert (record["format"], record["message_id"], record["run_no"]) == ("eks-v1alpha2", "sns-1", 1)
    records.claimed(eks_task("task-2"), message_id="message-2")
    assert records.get("task-2")["message_id"] == "message-2"


def test_claim_by_another_message_keeps_that_one(records: Records) -> None:
    claim = records.claimed(eks_task(), sns_id="sns-1")
    records.store.release(claim, counts=Counts.NOTHING)
    again = records.claimed(eks_task(), owner="nonce-2", sns_id="sns-2")
    assert (again.run_no, again.attempt) == (1, 2)
    assert records.get()["message_id"] == "sns-2"


def end_of(records: Records, end: str, task: Task, **message: Any) -> Claim:
    """Claim `task` for a message, and write its end."""
    claim = records.claimed(task, owner=f"owner of {end}", **message)
    match end:
        case "completed":
            records.store.renew(claim, lease_s=LEASE_S, progress=Progress(percent=40, step=8, eta_s=12))
            result = dataclasses.replace(RESULT, warnings=("all black",), gpu_cost_usd=Decimal("0.001"))
            records.store.complete(claim, task, result)
        case "failed":
            records.store.fail(claim, task, FAILURE)
        case _:
            records.submitted.request_cancel(task.task_id)
            records.store.cancelled(claim, task)
    return claim


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_another_message_with_the_id_of_a_task_that_ended_is_a_new_run(records: Records, end: str) -> None:
    end_of(records, end, eks_task(form=Format.EKS_V1ALPHA1), sns_id="sns-1")
    records.clock.advance(60)
    other = eks_task(payload={"prompt": "a hound"}, runtime=None)

    claim = records.claimed(other, owner="again", sns_id="sns-2", age_s=1.0)
    assert claim == Claim(task_id="task-1", owner="again", attempt=2, run_no=2, runs=1)
    now = records.clock.now()
    assert records.get() == {
        "task_id": "task-1",
        "status": "processing",
        "owner": "again",
        "attempt": 2,
        "runs": 1,
        "run_no": 2,
        "lease_until": now + LEASE_S,
        "created_at": int(now - 1.0),
        "updated_at": int(now),
        "fingerprint": other.fingerprint,
        "job_type": "txt2img",
        "worker": "worker-1",
        "format": "eks-v1alpha2",
        "message_id": "sns-2",
        "earlier_messages": ["sns-1"],
    }, "nothing of the run before is left"
    records.store.complete(claim, other, RESULT)
    assert (records.get()["status"], records.get()["run_no"]) == ("completed", 2)


def test_runs_of_one_id_are_counted_on(records: Records) -> None:
    for n in range(1, 5):
        claim = end_of(records, "failed" if n % 2 else "completed", eks_task(), sns_id=f"sns-{n}")
        assert (claim.run_no, claim.attempt, claim.runs) == (n, n, 1)


def test_a_copy_of_the_message_that_ended_is_a_duplicate(records: Records) -> None:
    end_of(records, "failed", eks_task(), sns_id="sns-1", message_id="message-1")
    before = records.get()
    for age_s in (5.0, -5.0):
        assert records.refused(eks_task(), sns_id="sns-1", message_id="message-2", age_s=age_s) is Refusal.DUPLICATE
    assert records.get() == before


def test_a_late_copy_of_the_message_of_an_earlier_run_is_a_duplicate_too(records: Records) -> None:
    """Its worker died after the end was written and before the message was deleted."""
    for n in range(1, 8):
        end_of(records, "completed", eks_task(), sns_id=f"sns-{n}")
    before = records.get()
    assert before["earlier_messages"] == ["sns-6", "sns-5", "sns-4", "sns-3", "sns-2"]
    for n in range(2, 8):
        assert records.refused(eks_task(), sns_id=f"sns-{n}") is Refusal.DUPLICATE
    assert records.get() == before


def test_without_an_envelope_the_message_s_own_id_tells(records: Records) -> None:
    end_of(records, "completed", eks_task(), message_id="message-1")
    assert records.refused(eks_task(), message_id="message-1") is Refusal.DUPLICATE
    assert records.claimed(eks_task(), owner="again", message_id="message-2").run_no == 2


def test_while_the_task_has_no_end_the_fingerprint_decides(records: Records) -> None:
    other = eks_task(payload={"prompt": "a hound"})
    claim = records.claimed(eks_task(), sns_id="sns-1")
    before = records.get()
    assert records.refused(eks_task(), sns_id="sns-2") is Refusal.ELSEWHERE
    assert records.refused(other, sns_id="sns-2") is Refusal.CONFLICT
    assert records.get() == before
    records.store.release(claim, counts=Counts.NOTHING)
    assert records.refused(other, sns_id="sns-2") is Refusal.CONFLICT


@pytest.mark.parametrize("ended", ["own", "job"])
def test_the_id_of_another_format_does_not_come_again(records: Records, ended: str) -> None:
    end_of(records, "completed", own_task() if ended == "own" else job_task())
    before = records.get()
    assert records.refused(eks_task(), sns_id="sns-2") is Refusal.CONFLICT
    assert records.get() == before


def test_an_id_of_our_own_format_is_refused_where_eks_had_it(records: Records) -> None:
    end_of(records, "completed", eks_task(), sns_id="sns-1")
    assert records.refused(own_task(), message_id="message-2") is Refusal.CONFLICT


def test_of_racing_messages_with_one_id_each_has_its_run_in_turn(records: Records) -> None:
    end_of(records, "completed", eks_task(), sns_id="sns-1")
    first = records.claimed(eks_task(), owner="a", sns_id="sns-2")
    assert records.refused(eks_task(), owner="b", sns_id="sns-3") is Refusal.ELSEWHERE
    records.store.complete(first, eks_task(), RESULT)
    assert records.claimed(eks_task(), owner="b", sns_id="sns-3").run_no == 3


def test_a_new_run_whose_claim_was_not_answered_is_claimed_once(records: Records) -> None:
    end_of(records, "completed", eks_task(), sns_id="sns-1")
    first = records.claimed(eks_task(), owner="again", sns_id="sns-2")
    assert records.claimed(eks_task(), owner="again", sns_id="sns-2") == first
    assert records.get()["run_no"] == 2


def test_whoever_held_the_run_before_is_fenced_off(records: Records) -> None:
    old = end_of(records, "completed", eks_task(), sns_id="sns-1")
    records.claimed(eks_task(), owner="again", sns_id="sns-2")
    with pytest.raises(LeaseLost):
        records.store.complete(old, eks_task(), RESULT)


def test_a_task_cancelled_before_any_claim_can_be_asked_for_again(records: Records) -> None:
    records.submitted.create(eks_task(), job_type="txt2img")
    assert records.get()["format"] == "eks-v1alpha2"
    assert records.submitted.request_cancel("task-1") == "cancelled"
    assert records.refused(eks_task(), sns_id="sns-1", age_s=5.0) is Refusal.DUPLICATE, "it was sent before that"
    records.clock.advance(60)
    # Its end was told as that of run 1, and what is told of the next must not lie in its place.
    assert records.claimed(eks_task(), owner="again", sns_id="sns-2", age_s=1.0).run_no == 2
    assert "finished_at" not in records.get()


# the job API's records


def test_a_job_s_record_has_its_path_and_its_format(records: Records) -> None:
    records.claimed(job_task())
    record = records.get()
    assert (record["job_type"], record["format"]) == ("/api/v1/camera-angle/jobs", "job-api")
    assert "message_id" not in record


@pytest.mark.parametrize("is_held", [True, False])
def test_a_cancelled_job_has_an_error_for_clients_that_know_no_cancellation(records: Records, is_held: bool) -> None:
    if is_held:
        records.store.cancelled(records.claimed(job_task()), job_task())
    else:
        records.submitted.create(job_task(), job_type=job_task().job_type)
        assert records.submitted.request_cancel("task-1") == "cancelled"
    assert (records.get()["status"], records.get()["error_message"]) == ("cancelled", "cancelled")


def test_a_failed_job_says_why(records: Records) -> None:
    records.store.fail(records.claimed(job_task()), job_task(), FAILURE)
    assert records.get()["error_message"] == FAILURE.message


# the adapter alone


@pytest.mark.parametrize("key_name", ["task_id", "taskId"])
def test_key_name_is_asked_of_the_table(cloud: Cloud, key_name: str) -> None:
    assert discover_key_name(cloud.clients.dynamodb, cloud.table(key_name=key_name)) == key_name


def test_table_with_another_key_or_none_at_all_is_said_to_be_wrong(cloud: Cloud) -> None:
    with pytest.raises(Unavailable, match=r"\['id'\].*task_id or taskId"):
        discover_key_name(cloud.clients.dynamodb, cloud.table(key_name="id"))
    with pytest.raises(Unavailable, match="describing table nowhere"):
        discover_key_name(cloud.clients.dynamodb, "nowhere")


@pytest.fixture(params=["down", "denied"])
def broken(
    request: pytest.FixtureRequest, clock: FakeClock
) -> Iterator[tuple[DynamoTaskStore, SubmittedTasks, type[Unavailable]]]:
    with denying() as denied:
        url, error = (NOWHERE, Unavailable) if request.param == "down" else (denied, AccessDenied)
        with one_attempt_client("dynamodb", url) as client:
            store = DynamoTaskStore(
                client,
                client,
                "records",
                key_name="task_id",
                clock=clock,
                address=str,
                worker="worker-1",
                max_runs=3,
                record_ttl_days=90,
            )
            submitted = SubmittedTasks(client, "records", key_name="task_id", clock=clock, record_ttl_days=90)
            yield store, submitted, error


def test_every_call_says_that_the_store_does_not_answer(
    broken: tuple[DynamoTaskStore, SubmittedTasks, type[Unavailable]], clock: FakeClock
) -> None:
    store, submitted, error = broken
    task, claim = own_task(), Claim(task_id="task-1", owner="nonce-1", attempt=1, run_no=1, runs=1)
    message = Message(
        queue=0, message_id="m", receipt="r", body="", sent_at_s=clock.now(), receive_count=1, received_s=0.0
    )
    calls: list[Callable[[], object]] = [
        lambda: store.read(["task-1"]),
        lambda: store.claim(task, message, owner="nonce-1", lease_s=LEASE_S),
        lambda: store.renew(claim, lease_s=LEASE_S, progress=None),
        lambda: store.release(claim, counts=Counts.NOTHING),
        lambda: store.complete(claim, task, RESULT),
        lambda: store.fail(claim, task, FAILURE),
        lambda: store.cancelled(claim, task),
        lambda: store.close_unclaimed("task-1", {"attempt": 1}, "failed", FAILURE),
        lambda: submitted.read(["task-1"]),
        lambda: submitted.create(task, job_type="txt2img"),
        lambda: submitted.request_cancel("task-1"),
    ]
    for call in calls:
        with pytest.raises(Unavailable) as caught:
            call()
        assert type(caught.value) is error
        assert "task" in caught.value.message or "records" in caught.value.message


def test_own_task_with_the_id_of_a_predecessors_record_is_a_conflict(records: Records) -> None:
    records.put(task_id="task-1", requestData=PREDECESSOR_REQUEST, taskStatus="waiting")
    before = records.get()
    assert records.refused(own_task("task-1")) is Refusal.CONFLICT
    assert records.get() == before


# announcements


def test_an_announcement_is_noted_once(records: Records) -> None:
    claim = records.claimed()
    records.store.complete(claim, own_task(), RESULT)
    assert "announced_at" not in records.get()
    records.store.announced("task-1", attempt=1)
    noted = records.get()["announced_at"]
    assert noted == int(records.clock.now())
    records.clock.advance(10)
    records.store.announced("task-1", attempt=1)
    assert records.get()["announced_at"] == noted


def test_the_announcement_of_an_end_that_nobody_claimed_is_noted(records: Records) -> None:
    records.submitted.create(own_task(), job_type="txt2img")
    records.submitted.request_cancel("task-1")
    records.store.announced("task-1", attempt=None)
    assert records.get()["announced_at"] == int(records.clock.now())


def test_no_announcement_is_noted_where_another_end_or_none_stands(records: Records) -> None:
    records.store.announced("task-1", attempt=1)
    assert records.find() is None
    claim = records.claimed()
    records.store.announced("task-1", attempt=1)
    records.store.fail(claim, own_task(), FAILURE)
    records.store.announced("task-1", attempt=2)
    records.store.announced("task-1", attempt=None)
    assert "announced_at" not in records.get()


def test_a_task_that_is_sent_again_is_announced_again(records: Records) -> None:
    records.store.fail(records.claimed(), own_task(), FAILURE)
    records.store.announced("task-1", attempt=1)
    records.clock.advance(10)
    records.claimed(owner="again")
    assert "announced_at" not in records.get()


def test_too_many_images_stand_elsewhere_and_the_record_says_where(records: Records) -> None:
    claim = records.claimed()
    large = dataclasses.replace(RESULT, images=(IMAGE,) * 3000)
    if records.cloud is not None:  # the fake has no limit
        with pytest.raises(Unstorable):
            records.store.complete(claim, own_task(), large)
    pointed = dataclasses.replace(large, images_key="tasks/task-1/images.json")
    records.store.complete(claim, own_task(), pointed)
    record = records.get()
    assert record["output_key"] == "tasks/task-1/images.json"
    assert "images" not in record
    end = read_end(own_task(), record)
    assert end is not None
    assert isinstance(end.outcome, Result)
    assert (end.outcome.images, end.outcome.images_key) == ((), "tasks/task-1/images.json")


@pytest.mark.parametrize("outcome", [RESULT, FAILURE, CANCELLED])
def test_an_end_is_read_from_its_record_as_it_was_written(records: Records, outcome: Result | Failure) -> None:
    claim, task = records.claimed(), own_task()
    match outcome:
        case Result():
            records.store.complete(claim, task, outcome)
        case Failure(kind="cancelled"):
            records.store.cancelled(claim, task)
        case _:
            records.store.fail(claim, task, outcome)
    end = read_end(task, records.get())
    assert end is not None
    told = outcome if isinstance(outcome, Failure) else Result(images=outcome.images)
    assert (end.outcome, end.run_no, end.attempt) == (told, 1, 1)
    assert end.at_s == pytest.approx(records.clock.now(), abs=0.01)


# jobs that an engine goes on with by itself


@pytest.mark.parametrize(("counts", "kept"), [(Counts.NOTHING, "job-7"), (Counts.RUN, None), (Counts.TRY, None)])
def test_the_job_of_a_run_that_was_only_given_back_is_told_to_the_next(
    records: Records, counts: Counts, kept: str | None
) -> None:
    claim = records.claimed(job_task())
    records.store.renew(claim, lease_s=LEASE_S, progress=None, job_id="job-7")
    assert (records.get()["comfy_job_id"], records.get()["comfy_job_at"]) == ("job-7", "worker-1")
    records.store.release(claim, counts=counts)
    assert records.claimed(job_task(), owner="nonce-2", receive_count=2).job_id == kept


def test_the_job_of_a_holder_that_died_is_told_to_the_next(records: Records) -> None:
    claim = records.claimed(job_task())
    records.store.renew(claim, lease_s=LEASE_S, progress=None, job_id="job-7")
    records.clock.advance(LEASE_S + 1)
    assert records.claimed(job_task(), owner="nonce-2", receive_count=2).job_id == "job-7"


def test_the_job_of_another_host_is_nobodys_here(records: Records) -> None:
    claim = records.claimed(job_task())
    records.store.release(claim, counts=Counts.NOTHING)
    records.put(**records.get() | {"comfy_job_id": "job-7", "comfy_job_at": "worker-2"})
    assert records.claimed(job_task(), owner="nonce-2", receive_count=2).job_id is None


def test_a_failed_task_sent_anew_has_no_job(records: Records) -> None:
    claim = records.claimed(job_task())
    records.store.renew(claim, lease_s=LEASE_S, progress=None, job_id="job-7")
    records.store.fail(claim, job_task(), FAILURE)
    records.clock.advance(10)
    assert records.claimed(job_task(), owner="nonce-2", age_s=1.0).job_id is None


def test_where_an_engine_stored_the_result_itself_is_recorded(records: Records) -> None:
    claim = records.claimed(job_task())  # and no renewal before a quick job has ended
    result = dataclasses.replace(RESULT, images=(), result_s3_uri="s3://out/1.png", job_id="job-7")
    records.store.complete(claim, job_task(), result)
    record = records.get()
    assert (record["status"], record["result_s3_uri"], record["comfy_job_id"]) == (
        "completed",
        "s3://out/1.png",
        "job-7",
    )
