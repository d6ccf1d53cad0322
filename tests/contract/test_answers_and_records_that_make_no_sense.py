"""The adapters among records that others wrote and answers that AWS never gave: an outage or a refusal, never a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from aws_servers import Cloud, clients_for
from fakes import FakeClock
from fakes.endpoint import endpoint

from scheduler.aws.clients import Clients
from scheduler.domain.claiming import Refusal, Refused
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import Counts, Rejected, Unavailable
from scheduler.domain.skew import SkewBounds
from scheduler.domain.task import (
    Claim,
    EngineImage,
    Failure,
    Format,
    Message,
    Result,
    Task,
    TaskType,
)
from scheduler.sqs_consumer import QueueFacts, SqsQueue, discover
from scheduler.stores.expressions import decode
from scheduler.stores.images import S3ImageStore
from scheduler.stores.tasks import DynamoTaskStore, discover_key_name

LEASE_S = 30.0
FAILURE = Failure(kind="rejected", message="no")
OWN = Task(task_id="task-1", task_type=TaskType.TXT2IMG, payload={}, fingerprint="f1")
REFERENCE = dataclasses.replace(OWN, fingerprint="", format=Format.PREDECESSOR, by_reference=True)
CLAIM = Claim(task_id="task-1", owner="nonce-1", attempt=1, run_no=1, runs=1)
MESSAGE = Message(queue=0, message_id="m-1", receipt="r-1", body="{}", sent_at_s=0.0, receive_count=1, received_s=0.0)
IMAGE = EngineImage(data=b"png", media_type="image/png", extension=".png", width=8, height=8)


def store_of(clients: Clients, table: str, clock: FakeClock) -> DynamoTaskStore:
    return DynamoTaskStore(
        clients.dynamodb,
        clients.keeper_dynamodb,
        table,
        key_name="task_id",
        clock=clock,
        address=str,
        worker="worker-1",
        max_runs=3,
        record_ttl_days=90,
    )


# records


ODD = {
    "null": {"NULL": True},
    "true": {"BOOL": True},
    "false": {"BOOL": False},
    "words": {"S": "yesterday"},
    "zero": {"N": "0"},
    "huge": {"N": "9e120"},
    "list": {"L": [{"S": "a"}]},
    "set": {"SS": ["a"]},
}
BEFORE: dict[str, dict[str, Any]] = {
    "bare": {},
    "pending": {"status": {"S": "pending"}},
    "lapsed": {"status": {"S": "processing"}, "lease_until": {"N": "5"}},
    "failed": {"status": {"S": "failed"}, "finished_at": {"N": "5"}},
}
NAMES = (
    "cancel_requested",
    "fingerprint",
    "finished_at",
    "first_try_at",
    "lease_until",
    "run_no",
    "taskStatus",
    "tries",
)


@pytest.mark.parametrize("task", [OWN, REFERENCE], ids=["own", "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_a_claim_comes_to_an_answer_whatever_is_in_the_record(
    ministack: Cloud, clock: FakeClock, name: str, task: Task
) -> None:
    """Without one the worker would ask for ever, and nothing else would be done meanwhile.

    moto compares values of different types, which DynamoDB does not.
    """
    table = ministack.table()
    store = store_of(ministack.clients, table, clock)
    for before, odd, receive_count in itertools.product(BEFORE, ODD.values(), (1, 2)):
        item = {"task_id": {"S": "task-1"}} | BEFORE[before] | {name: odd}
        ministack.clients.dynamodb.put_item(TableName=table, Item=item)
        message = dataclasses.replace(MESSAGE, sent_at_s=clock.now() - 5, receive_count=receive_count)
        answer = store.claim(task, message, owner="nonce-1", lease_s=LEASE_S)
        assert isinstance(answer, Claim | Refused), (before, odd)
        assert not (isinstance(answer, Refused) and answer.reason is Refusal.CHANGED), (before, odd)
        if isinstance(answer, Refused) and answer.reason in {Refusal.CANCELLED, Refusal.EXHAUSTED}:
            assert store.close_unclaimed("task-1", answer.record or {}, "failed", FAILURE), (before, odd)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_a_mark_of_any_kind_cancels(cloud: Cloud, clock: FakeClock, odd: dict[str, Any]) -> None:
    table = cloud.table()
    store = store_of(cloud.clients, table, clock)
    item = {"task_id": {"S": "task-1"}, "status": {"S": "pending"}, "attempt": {"N": "1"}, "cancel_requested": odd}
    cloud.clients.dynamodb.put_item(TableName=table, Item=item)
    answer = store.claim(OWN, MESSAGE, owner="nonce-1", lease_s=LEASE_S)
    assert isinstance(answer, Claim) if odd == {"BOOL": False} else answer.reason is Refusal.CANCELLED


@pytest.mark.parametrize("odd", [odd for odd in ODD.values() if "N" not in odd])
def test_a_record_whose_attempt_is_no_number_is_not_closed(cloud: Cloud, clock: FakeClock, odd: dict[str, Any]) -> None:
    table = cloud.table()
    store = store_of(cloud.clients, table, clock)
    item = {"task_id": {"S": "task-1"}, "taskStatus": {"S": "waiting"}, "attempt": odd}
    cloud.clients.dynamodb.put_item(TableName=table, Item=item)
    [record] = store.read(["task-1"]).values()
    assert store.close_unclaimed("task-1", record, "failed", FAILURE) is False
    assert store.read(["task-1"])["task-1"] == record


def test_numbers_are_read_however_large() -> None:
    digits = "9" + "0" * 120
    assert decode({"a": {"N": digits}, "b": {"L": [{"N": "1e-130"}]}}) == {
        "a": Decimal(digits),
        "b": [Decimal("1e-130")],
    }


def test_a_message_older_than_a_failure_that_came_after_it_was_judged_does_not_start_the_task_anew(
    cloud: Cloud, clock: FakeClock
) -> None:
    """Between the look at the record and the claim another worker ran the task, and it failed again."""
    table = cloud.table()
    store = store_of(cloud.clients, table, clock)
    late = dataclasses.replace(MESSAGE, sent_at_s=clock.now() + 60, receive_count=2)
    claim = store.claim(OWN, late, owner="first", lease_s=LEASE_S)
    assert isinstance(claim, Claim)
    store.fail(claim, OWN, FAILURE)
    call = store._try_claim
    looks: list[str] = []

    def meanwhile(task_id: str, update: Any, **options: Any) -> Any:
        if looks:  # the first was refused and judged: it failed before this message was sent
            clock.advance(120)
            failed_again = dataclasses.replace(late, sent_at_s=clock.now())
            again = other.claim(OWN, failed_again, owner="second", lease_s=LEASE_S)
            assert isinstance(again, Claim)
            other.fail(again, OWN, FAILURE)
            store._try_claim = call  # type: ignore[method-assign]
        looks.append(task_id)
        return call(task_id, update, **options)

    other = store_of(cloud.clients, table, clock)
    store._try_claim = meanwhile  # type: ignore[method-assign]
    answer = store.claim(OWN, late, owner="third", lease_s=LEASE_S)
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.DUPLICATE


def test_a_message_whose_copy_had_its_run_after_it_was_judged_does_not_start_another(
    cloud: Cloud, clock: FakeClock
) -> None:
    """Between the look at the record and the claim another worker ran the copy to its end."""
    table = cloud.table()
    store, other = store_of(cloud.clients, table, clock), store_of(cloud.clients, table, clock)
    eks = dataclasses.replace(OWN, format=Format.EKS_V1ALPHA2)

    def run(worker: DynamoTaskStore, sns_id: str) -> None:
        claim = worker.claim(eks, dataclasses.replace(MESSAGE, sns_id=sns_id), owner=f"of {sns_id}", lease_s=LEASE_S)
        assert isinstance(claim, Claim)
        worker.complete(claim, eks, Result(images=()))

    run(other, "sns-1")
    call = store._try_claim
    looks: list[str] = []

    def meanwhile(task_id: str, update: Any, **options: Any) -> Any:
        if len(looks) == 1:  # the first was refused and judged: the record has the end of another message
            run(other, "sns-2")
        looks.append(task_id)
        return call(task_id, update, **options)

    store._try_claim = meanwhile  # type: ignore[method-assign]
    answer = store.claim(eks, dataclasses.replace(MESSAGE, sns_id="sns-2"), owner="late", lease_s=LEASE_S)
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.DUPLICATE
    assert len(looks) == 2


# answers


@pytest.fixture(
    params=[b"<html>Sign in to this network</html>", b"{}", b"", b"[]", b"null"],
    ids=["html", "object", "empty", "list", "null"],
)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[tuple[str, Clients]]:
    """Clients whose every call is answered with 200 by something that is not AWS."""
    with endpoint(lambda _method, _path, _body: (200, request.param), is_aws=False) as url, clients_for(url) as clients:
        yield url, clients


def test_no_answer_of_something_else_is_taken_for_a_record_s(elsewhere: tuple[str, Clients], clock: FakeClock) -> None:
    _, clients = elsewhere
    store = store_of(clients, "records", clock)
    calls: list[Callable[[], object]] = [
        lambda: store.read(["task-1"]),
        lambda: store.claim(OWN, MESSAGE, owner="nonce-1", lease_s=LEASE_S),
        lambda: store.claim(OWN, dataclasses.replace(MESSAGE, receive_count=2), owner="nonce-1", lease_s=LEASE_S),
        lambda: store.renew(CLAIM, lease_s=LEASE_S, progress=None),
        lambda: store.release(CLAIM, counts=Counts.NOTHING),
        lambda: store.complete(CLAIM, OWN, Result(images=())),
        lambda: store.fail(CLAIM, OWN, FAILURE),
        lambda: store.close_unclaimed("task-1", {}, "failed", FAILURE),
        lambda: store.create(OWN, job_type="txt2img"),
        lambda: discover_key_name(clients.dynamodb, "records"),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()


def queue_at(url: str, clients: Clients, *, dlq: bool) -> SqsQueue:
    facts = QueueFacts(url=f"{url}/1/tasks", visibility_s=30, dlq_url=f"{url}/1/dlq" if dlq else None)
    return SqsQueue(clients, facts, index=0, bucket="pictures", clock=SystemClock(), skew=SkewBounds())


def test_nor_for_a_queue_s(elsewhere: tuple[str, Clients]) -> None:
    url, clients = elsewhere
    queue = queue_at(url, clients, dlq=True)
    for call in (queue.delete, queue.extend, lambda receipts: queue.give_back(receipts, delay_s=0)):
        with contextlib.suppress(Unavailable):
            assert call(["r-1", "r-2"]) == ["r-1", "r-2"]  # nothing was acknowledged
    for refuse in (queue.refuse, queue_at(url, clients, dlq=False).refuse):
        with pytest.raises(Unavailable):
            refuse(MESSAGE, Rejected("no", field="body"))
    with pytest.raises(Unavailable):
        discover(clients.sqs, "tasks", clock=SystemClock(), skew=SkewBounds())


def test_nor_for_a_bucket_s(elsewhere: tuple[str, Clients]) -> None:
    _, clients = elsewhere
    with pytest.raises(Unavailable):
        S3ImageStore(clients.s3, "pictures").put("tasks/t1/1.png", IMAGE)


@pytest.mark.parametrize(
    "body",
    [
        b'{"Messages": [{"MessageId": "m-1"}]}',
        b'{"Messages": [{"MessageId": "m-1", "ReceiptHandle": "r", "Body": "{}", "Attributes": {}}]}',
        b'{"Messages": [{"MessageId": "m-1", "ReceiptHandle": "r", "Body": "{}", "Attributes": {"SentTimestamp": "now"}}]}',
        b'{"Messages": 5}',
        b"[]",
    ],
)
def test_messages_that_miss_something_are_no_messages(body: bytes) -> None:
    with endpoint(lambda _method, _path, _body: (200, body)) as url, clients_for(url) as clients:
        queue = queue_at(url, clients, dlq=True)
        with pytest.raises(Unavailable):
            queue.receive(10, wait_s=0)


@pytest.mark.parametrize(
    "body", [b'{"Failed": [{"Id": "77", "SenderFault": true, "Code": "x"}]}', b'{"Successful": [{"Id": "1"}]}']
)
def test_only_what_sqs_names_as_deleted_is(body: bytes) -> None:
    with endpoint(lambda _method, _path, _body: (200, body)) as url, clients_for(url) as clients:
        kept = queue_at(url, clients, dlq=True).delete(["r-0", "r-1"])
    assert kept == (["r-0"] if b"Successful" in body else ["r-0", "r-1"])


def test_metadata_that_somebody_else_wrote_describes_a_picture_as_far_as_it_can(cloud: Cloud) -> None:
    bucket = cloud.bucket()
    cloud.clients.s3.put_object(
        Bucket=bucket, Key="k.png", Body=b"theirs", Metadata={"width": "wide", "height": "-", "seed": "lucky"}
    )
    stored = S3ImageStore(cloud.clients.s3, bucket).put("k.png", IMAGE)
    assert (stored.width, stored.height, stored.seed, stored.size_bytes) == (None, None, None, 6)
