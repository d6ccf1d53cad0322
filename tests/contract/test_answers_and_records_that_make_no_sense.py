"""The adapters among records that others wrote and answers that AWS never gave:
an outage or a refusal, never a crash.
"""

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
from fleet_tables import fleet_table
from structlog.testing import capture_logs

from scheduler.autoscale import protocol
from scheduler.autoscale.book import Book, Pause, Published
from scheduler.autoscale.protocol import Report
from scheduler.autoscale.state_table import DynamoFleetState
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
from scheduler.stores.record_table import discover_key_name
from scheduler.stores.submitted_tasks import SubmittedTasks
from scheduler.stores.tasks import DynamoTaskStore

LEASE_S = 30.0
NOW_S = 1_900_000_000.25
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


# the fleet's


FLEET_NAMES = {
    "worker#i-2": ("instance_id", "boot_id", "state", "drain_no", "beat", "replace", "since_s", "report"),
    "decision": ("body", "leader"),
    "settings": ("modified_s", "by", "body"),
    "pause": ("until_s", "by", "why"),
}
ODD_BODIES = ("", "{", "[]", "null", '{"version": NaN}', '{"version": 1, "capacity": "lots"}', '{"policy": 5}')


@pytest.fixture
def fleet(moto: Cloud, clock: FakeClock) -> DynamoFleetState:
    """A fleet's table in which all is well."""
    state = DynamoFleetState(moto.clients.dynamodb, fleet_table(moto), "asg/painters", clock=clock)
    for instance_id in ("i-1", "i-2"):
        change = protocol.register(None, instance_id=instance_id, boot_id="boot-1", now_s=NOW_S)
        assert change is not None
        worker = state.change(change).worker
        assert worker is not None
        assert state.change(protocol.beat(worker, Report(running=1), now_s=NOW_S)).is_applied
    book = Book(version=1, leader="i-1", written_s=NOW_S, capacity=2)
    assert state.write_book(book, seen=None)
    state.keep(book)
    state.keep(dataclasses.replace(book, version=2))
    assert state.publish(Published(version=1, modified_s=NOW_S, by="i-1", values={"policy": "step"}), seen=None)
    state.set_pause(Pause(until_s=NOW_S, by="ann"))
    return state


def spoil(state: DynamoFleetState, item: str, name: str, odd: dict[str, Any] | None) -> None:
    key = {"fleet": {"S": "asg/painters"}, "item": {"S": item}}
    action: Any = {"Action": "DELETE"} if odd is None else {"Action": "PUT", "Value": odd}
    state._client.update_item(TableName=state._table, Key=key, AttributeUpdates={name: action})


@pytest.mark.parametrize(("item", "name"), [(item, name) for item, names in FLEET_NAMES.items() for name in names])
def test_one_odd_record_of_the_fleet_stops_nobody(fleet: DynamoFleetState, item: str, name: str) -> None:
    """Each is read as it is, or is as if absent; who must obey it is told that it cannot be
    had; no two of it are told.
    """
    for odd in (None, *ODD.values(), *({"S": body} for body in ODD_BODIES if name in {"body", "report"})):
        spoil(fleet, item, name, odd)
        fleet._odd.clear()
        with capture_logs() as logs:
            registry = fleet.registry()
            fleet.registry()
            book, published, pause = fleet.book(), fleet.published(), fleet.pause()
        told = [entry["item"] for entry in logs if entry["event"] == "fleet_record_odd"]
        assert told in ([], [item]), odd
        known = {worker.instance_id for worker in registry.workers}
        assert known | registry.unreadable.keys() == {"i-1", "i-2"}, odd
        assert known >= {"i-1"}
        assert ("i-2" in registry.unreadable) == (told == ["worker#i-2"])
        assert book is not None
        assert published is not None
        assert (book.version, published.version) == (1, 1), odd
        if told == ["decision"]:
            assert book.began_s > 0, "who is not in the registry may be older than it, and at work"
        if told == ["settings"]:
            assert (published.modified_s, published.values) == (0.0, {}), "any host's own are newer"
        if told == ["pause"]:
            assert pause is None
        if told == ["worker#i-2"]:
            with pytest.raises(Unavailable):
                fleet.worker("i-2")


def test_what_lost_its_version_can_be_written_by_nobody_and_says_so(fleet: DynamoFleetState) -> None:
    for item, read in (("decision", fleet.book), ("settings", fleet.published)):
        spoil(fleet, item, "version", {"S": "one"})
        with pytest.raises(Unavailable, match=f"the item {item} of table .* makes no sense .*: delete it"):
            read()


def test_history_leaves_out_what_makes_no_sense(fleet: DynamoFleetState) -> None:
    spoil(fleet, "history#000000000001", "body", {"S": "{"})
    assert [book.version for book in fleet.history(9)] == [2]


def test_a_heartbeat_that_cannot_be_added_to_what_is_there_is_as_one_that_could_not_be_written(
    fleet: DynamoFleetState,
) -> None:
    worker = fleet.worker("i-2")
    assert worker is not None
    spoil(fleet, "worker#i-2", "beat", {"S": "many"})
    with pytest.raises(Unavailable):
        fleet.change(protocol.beat(worker, Report(), now_s=NOW_S))


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
    submitted = SubmittedTasks(clients.dynamodb, "records", key_name="task_id", clock=clock, record_ttl_days=90)
    calls: list[Callable[[], object]] = [
        lambda: store.read(["task-1"]),
        lambda: store.claim(OWN, MESSAGE, owner="nonce-1", lease_s=LEASE_S),
        lambda: store.claim(OWN, dataclasses.replace(MESSAGE, receive_count=2), owner="nonce-1", lease_s=LEASE_S),
        lambda: store.renew(CLAIM, lease_s=LEASE_S, progress=None),
        lambda: store.release(CLAIM, counts=Counts.NOTHING),
        lambda: store.complete(CLAIM, OWN, Result(images=())),
        lambda: store.fail(CLAIM, OWN, FAILURE),
        lambda: store.close_unclaimed("task-1", {}, "failed", FAILURE),
        lambda: submitted.create(OWN, job_type="txt2img"),
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
