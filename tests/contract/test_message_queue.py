"""A queue as its consumers use it: one suite over SQS in moto, in ministack, and the fake in memory."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aws_servers import NOWHERE, Cloud, MadeQueue, clients_for
from fakes import FakeClock, FakeQueue
from fakes.endpoint import denying, endpoint

from scheduler.aws.clients import Clients
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import AccessDenied, Rejected, Unavailable
from scheduler.domain.ports import Clock, MessageQueue
from scheduler.domain.skew import SkewBounds
from scheduler.domain.task import Message
from scheduler.sqs_consumer import MAX_DLQ_BODY_BYTES, QueueFacts, SqsQueue, discover

BODY = '{"task_id": "狐-1",  "payload": {"prompt": "a\\tfox"}}\n'
WHY = Rejected("task_type is missing", field="task_type")


class Line:
    """A queue under test, and what lies in and beside it as others see it."""

    queue: MessageQueue
    clock: Clock

    def __init__(self, *, name: str, server_says_no_to_superseded: bool) -> None:
        self.name = name
        self.rejects_superseded = server_says_no_to_superseded

    def send(self, *bodies: str) -> None:
        raise NotImplementedError

    def lease(self, seconds: int) -> None:
        """Set the lease; SqsQueue itself takes none under 5 s, which tests do not wait for."""
        self.queue.lease_s = seconds

    def after(self, seconds: int, most: int = 10) -> list[Message]:
        """Return what somebody receives who waits for `seconds`."""
        raise NotImplementedError

    def refused(self) -> list[tuple[str, str, str]]:
        """Return (body, reason, field) of everything that was refused."""
        raise NotImplementedError

    def take(self, many: int) -> list[Message]:
        """Receive exactly `many` messages that are visible."""
        found: list[Message] = []
        deadline_s = time.monotonic() + 20
        while len(found) < many and time.monotonic() < deadline_s:
            found += self.queue.receive(many - len(found), wait_s=1)
        assert len(found) == many
        return found

    def one(self) -> Message:
        return self.take(1)[0]


class FakeLine(Line):
    def __init__(self, clock: FakeClock) -> None:
        super().__init__(name="fake", server_says_no_to_superseded=True)
        self.clock = self.fake_clock = clock
        self.queue = self.fake = FakeQueue(clock, index=1, lease_s=30, longest_wait_s=5.0)

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.fake.send(body)

    def after(self, seconds: int, most: int = 10) -> list[Message]:
        self.fake_clock.advance(seconds)
        return self.queue.receive(most, wait_s=0)

    def refused(self) -> list[tuple[str, str, str]]:
        return [(message.body, why.message, why.field or "body") for message, why in self.fake.refused]


class SqsLine(Line):
    """The real adapter; the queue's own timeout is 0, so that only what a receive asks for hides a message."""

    def __init__(self, cloud: Cloud, *, dlq: bool = True) -> None:
        super().__init__(name=cloud.name, server_says_no_to_superseded=cloud.name == "ministack")
        self.cloud = cloud
        self.clock = SystemClock()
        self.made = cloud.queue(visibility_s=0, dlq=dlq)
        self.bucket = cloud.bucket() if not dlq else "unused"
        self.queue = self.sqs = sqs_queue(cloud.clients, self.made, bucket=self.bucket)
        self.lease(30)

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.cloud.clients.sqs.send_message(QueueUrl=self.made.url, MessageBody=body)

    def after(self, seconds: int, most: int = 10) -> list[Message]:
        return self.queue.receive(most, wait_s=seconds)

    def dead_letters(self) -> list[Any]:
        assert self.made.dlq_url is not None
        return received_raw(self.cloud.clients, self.made.dlq_url)

    def refused(self) -> list[tuple[str, str, str]]:
        return [(letter["Body"], *_reason(letter)) for letter in self.dead_letters()]


def _reason(letter: dict[str, Any]) -> tuple[str, str]:
    attributes = letter["MessageAttributes"]
    return attributes["reject_reason"]["StringValue"], attributes["reject_field"]["StringValue"]


def received_raw(clients: Clients, url: str) -> list[Any]:
    answer = clients.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
    )
    return list(answer.get("Messages", []))


def sqs_queue(clients: Clients, made: MadeQueue, *, bucket: str = "unused", visibility_s: int = 30) -> SqsQueue:
    facts = QueueFacts(url=made.url, visibility_s=visibility_s, dlq_url=made.dlq_url)
    return SqsQueue(clients, facts, index=1, bucket=bucket, clock=SystemClock(), skew=SkewBounds())


@pytest.fixture(params=["fake", "moto", "ministack"])
def line(request: pytest.FixtureRequest, clock: FakeClock) -> Line:
    if request.param == "fake":
        return FakeLine(clock)
    return SqsLine(request.getfixturevalue(request.param))


@pytest.fixture
def sqs(cloud: Cloud) -> SqsLine:
    return SqsLine(cloud)


# receiving


def test_message_comes_with_its_facts(line: Line) -> None:
    line.send(BODY)
    message = line.one()
    assert message.body == BODY
    assert message.queue == 1
    assert message.receive_count == 1
    assert message.message_id
    assert message.receipt
    assert abs(message.sent_at_s - line.clock.now()) < 60
    assert abs(message.received_s - line.clock.monotonic()) < 60


def test_several_come_at_once_and_never_more_than_asked(line: Line) -> None:
    line.send(*(f"body {n}" for n in range(5)))
    assert len(line.queue.receive(2, wait_s=1)) <= 2
    line.queue.give_back([], delay_s=0)  # nothing at all is no call that fails
    rest = line.take(3)
    assert len({message.message_id for message in rest}) == 3


def test_asking_for_more_than_sqs_allows_asks_for_what_it_allows(line: Line) -> None:
    line.send("one")
    assert [message.body for message in line.queue.receive(50, wait_s=1)] == ["one"]


def test_nothing_there_is_nothing_received(line: Line) -> None:
    assert line.queue.receive(10, wait_s=0) == []


def test_receive_hides_for_the_lease(line: Line) -> None:
    line.send(BODY)
    first = line.one()
    assert line.queue.receive(10, wait_s=0) == []
    line.queue.give_back([first.receipt], delay_s=0)

    line.lease(1)
    second = line.one()
    line.lease(30)
    (third,) = line.after(5)
    assert third.message_id == first.message_id
    assert (second.receive_count, third.receive_count) == (2, 3)
    assert third.sent_at_s == first.sent_at_s
    assert third.receipt != first.receipt


def test_long_poll_is_woken_by_a_message(line: Line) -> None:
    got: list[Message] = []
    asked = threading.Event()
    if isinstance(line, SqsLine):
        events = line.cloud.clients.receive.meta.events
        events.register("before-send.sqs.ReceiveMessage", lambda **_: asked.set(), "asked")
    else:
        asked.set()
    receiver = threading.Thread(target=lambda: got.extend(line.queue.receive(10, wait_s=5)))
    try:
        receiver.start()
        assert asked.wait(10)
        line.send(BODY)
        receiver.join(20)
    finally:
        if isinstance(line, SqsLine):
            events.unregister("before-send.sqs.ReceiveMessage", unique_id="asked")
    assert [message.body for message in got] == [BODY]


# extending and giving back


def test_extension_keeps_a_message_hidden(line: Line) -> None:
    line.send(BODY)
    line.lease(3)
    message = line.one()
    line.lease(30)
    assert line.queue.extend([message.receipt]) == []
    assert line.after(4) == []


def test_extension_is_for_one_lease_from_now(line: Line) -> None:
    line.send(BODY)
    message = line.one()
    line.lease(1)
    assert line.queue.extend([message.receipt]) == []
    assert [again.message_id for again in line.after(5)] == [message.message_id]


def test_give_back_shows_a_message_at_once(line: Line) -> None:
    line.send(BODY)
    message = line.one()
    assert line.queue.give_back([message.receipt], delay_s=0) == []
    (again,) = line.queue.receive(10, wait_s=1)
    assert (again.message_id, again.receive_count) == (message.message_id, 2)


def test_give_back_with_a_delay_shows_it_after_that(line: Line) -> None:
    line.send(BODY)
    message = line.one()
    assert line.queue.give_back([message.receipt], delay_s=2.2) == []
    assert line.queue.receive(10, wait_s=0) == []
    assert [again.message_id for again in line.after(5)] == [message.message_id]


@pytest.mark.parametrize("call", ["extend", "give_back"])
def test_receipt_that_is_none_is_returned_and_the_others_are_served(line: Line, call: str) -> None:
    line.send(BODY)
    message = line.one()
    receipts = ["no-receipt-of-ours", message.receipt]
    if call == "extend":
        line.lease(1)
        assert line.queue.extend(receipts) == ["no-receipt-of-ours"]
        assert len(line.after(5)) == 1
    else:
        assert line.queue.give_back(receipts, delay_s=0) == ["no-receipt-of-ours"]
        assert len(line.queue.receive(10, wait_s=1)) == 1


# deleting


def test_deleted_message_is_gone(line: Line) -> None:
    line.send("stays", "goes")
    messages = {message.body: message for message in line.take(2)}
    assert line.queue.delete([messages["goes"].receipt]) == []
    line.queue.give_back([messages["stays"].receipt], delay_s=0)
    assert [message.body for message in line.queue.receive(10, wait_s=1)] == ["stays"]


def test_deletion_is_told_entry_by_entry_over_many_batches(line: Line) -> None:
    line.send(*(f"body {n}" for n in range(12)))
    receipts = [message.receipt for message in line.take(12)]
    asked = [*receipts[:7], "no-receipt", *receipts[7:], "nor-this"]
    assert line.queue.delete(asked) == ["no-receipt", "nor-this"]
    assert line.after(0) == []


def test_many_are_given_back_over_several_batches(line: Line) -> None:
    line.send(*(f"body {n}" for n in range(12)))
    receipts = [message.receipt for message in line.take(12)]
    assert line.queue.extend(receipts) == []
    assert line.queue.give_back(receipts, delay_s=0) == []
    assert {message.body for message in line.take(12)} == {f"body {n}" for n in range(12)}


def test_superseded_receipt_is_refused_or_does_delete(line: Line) -> None:
    """Real SQS may do either; what a caller is told must be what was done."""
    line.send(BODY)
    first = line.one()
    line.queue.give_back([first.receipt], delay_s=0)
    second = line.one()
    failed = line.queue.delete([first.receipt])
    assert failed == ([first.receipt] if line.rejects_superseded else [])
    line.queue.give_back([second.receipt], delay_s=0)
    assert len(line.after(1)) == len(failed)


# refusing


def test_refused_message_is_kept_with_its_reason_and_leaves_the_queue(line: Line) -> None:
    line.send(BODY)
    message = line.one()
    line.queue.refuse(message, WHY)
    assert line.refused() == [(BODY, "task_type is missing", "task_type")]
    assert line.queue.delete([message.receipt]) in ([], [message.receipt])  # gone already
    assert line.after(0) == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("größe 图片 🦊 is wrong", "größe 图片 🦊 is wrong"),
        ("a\x00b\nc\x1b[31m\x7f\ufffed", "a b c [31m  d"),
        ("half of a pair: \ud83e", "half of a pair:  "),
        ("", "-"),
        ("狐" * 5000, "狐" * 500),
    ],
    ids=["non-ascii", "control", "surrogate", "empty", "long"],
)
def test_reason_is_kept_as_an_attribute_may_be(sqs: SqsLine, said: str, kept: str) -> None:
    sqs.send(BODY)
    sqs.queue.refuse(sqs.one(), Rejected(said, field=said))
    ((body, reason, field),) = sqs.refused()
    assert body == BODY
    assert reason == kept
    assert field == ("body" if said == "" else kept)


def test_body_that_is_no_json_is_kept_byte_for_byte(sqs: SqsLine) -> None:
    body = "\t{'not': json}\r\n  ü \U0001f98a 'quotes\" <xml>&amp; "
    sqs.send(body)
    sqs.queue.refuse(sqs.one(), Rejected("body is not JSON", field=None))
    assert sqs.refused() == [(body, "body is not JSON", "body")]


def test_largest_body_that_leaves_room_goes_to_the_dead_letters(cloud: Cloud) -> None:
    line = SqsLine(cloud)
    body = "ü" * (MAX_DLQ_BODY_BYTES // 2)
    line.send(body)
    line.queue.refuse(line.one(), Rejected("狐" * 5000, field="狐" * 5000))
    ((kept, _, _),) = line.refused()
    assert kept == body


def test_body_without_room_for_a_reason_goes_to_the_bucket(cloud: Cloud) -> None:
    line = SqsLine(cloud)
    bucket = cloud.bucket()
    line.queue = sqs_queue(cloud.clients, line.made, bucket=bucket)
    body = "ü" * (MAX_DLQ_BODY_BYTES // 2) + "x"
    line.send(body)
    message = line.one()
    line.queue.refuse(message, WHY)
    assert line.refused() == []
    assert kept_in_bucket(cloud, bucket, message)["body"] == body


def test_without_a_dead_letter_queue_the_bucket_keeps_it(cloud: Cloud) -> None:
    line = SqsLine(cloud, dlq=False)
    line.send(BODY)
    message = line.one()
    line.queue.refuse(message, Rejected("图片\x00 is wrong", field="payload.steps"))
    assert kept_in_bucket(cloud, line.bucket, message) == {
        "reject_reason": "图片  is wrong",
        "reject_field": "payload.steps",
        "sent_at": message.sent_at_s,
        "body": BODY,
    }
    line.queue.give_back([message.receipt], delay_s=0)
    assert line.after(1) == []


def kept_in_bucket(cloud: Cloud, bucket: str, message: Message) -> dict[str, Any]:
    kept = cloud.clients.s3.get_object(Bucket=bucket, Key=f"rejected/{message.message_id}.json")
    with kept["Body"] as stream:
        return dict(json.load(stream))


def test_message_that_cannot_be_kept_stays(cloud: Cloud) -> None:
    line = SqsLine(cloud)
    nowhere = dataclasses.replace(line.made, dlq_url=line.made.url + "-deleted")
    line.queue = sqs_queue(cloud.clients, nowhere)
    line.send(BODY)
    message = line.one()
    with pytest.raises(Unavailable, match="refusing message"):
        line.queue.refuse(message, WHY)
    line.queue.give_back([message.receipt], delay_s=0)
    assert [again.body for again in line.queue.receive(10, wait_s=1)] == [BODY]


def test_where_the_dead_letter_queue_takes_it_never_the_bucket_keeps_it(cloud: Cloud) -> None:
    line = SqsLine(cloud)
    bucket = cloud.bucket()
    gone = dataclasses.replace(line.made, dlq_url=line.made.url + "-deleted")
    line.queue = sqs_queue(cloud.clients, gone, bucket=bucket)
    line.send(BODY)
    message = line.one()
    line.queue.refuse(message, WHY)
    assert kept_in_bucket(cloud, bucket, message)["reject_field"] == "task_type"
    line.queue.give_back([message.receipt], delay_s=0)
    assert line.after(1) == []


def test_refusal_whose_deletion_fails_says_so(line: Line) -> None:
    line.send(BODY)
    message = dataclasses.replace(line.one(), receipt="no-receipt-of-ours")
    with pytest.raises(Unavailable, match="not acknowledged"):
        line.queue.refuse(message, WHY)


# what a queue says of itself


@pytest.mark.parametrize("by", ["name", "url"])
def test_facts_of_a_queue_with_dead_letters(cloud: Cloud, by: str) -> None:
    made = cloud.queue(visibility_s=42)
    asked = made.name if by == "name" else made.url
    facts = discover(cloud.clients.sqs, asked, clock=SystemClock(), skew=SkewBounds())
    assert facts == QueueFacts(url=made.url, visibility_s=42, dlq_url=made.dlq_url)


def test_facts_of_a_queue_without_dead_letters(cloud: Cloud) -> None:
    made = cloud.queue(visibility_s=7, dlq=False)
    facts = discover(cloud.clients.sqs, made.name, clock=SystemClock(), skew=SkewBounds())
    assert facts == QueueFacts(url=made.url, visibility_s=7, dlq_url=None)


def test_queue_that_is_not_there_is_unavailable(cloud: Cloud) -> None:
    with pytest.raises(Unavailable, match="asking about queue no-such-queue"):
        discover(cloud.clients.sqs, "no-such-queue", clock=SystemClock(), skew=SkewBounds())


@pytest.mark.parametrize(("off_s", "least_s"), [(0.0, 0.0), (3600.0, 3590.0), (-3600.0, 3590.0)])
def test_answers_tell_how_far_the_hosts_clock_is_off(cloud: Cloud, off_s: float, least_s: float) -> None:
    clock, skew = FakeClock(SystemClock().now() + off_s), SkewBounds()
    made = cloud.queue()
    discover(cloud.clients.sqs, made.name, clock=clock, skew=skew)
    assert least_s <= skew.least_s() <= abs(off_s) + 5
    seen_receiving = SkewBounds()
    facts = QueueFacts(url=made.url, visibility_s=30, dlq_url=None)
    clock.set_wall(SystemClock().now() + off_s)
    SqsQueue(cloud.clients, facts, index=0, bucket="b", clock=clock, skew=seen_receiving).receive(1, wait_s=0)
    assert least_s <= seen_receiving.least_s() <= abs(off_s) + 5


@pytest.mark.parametrize(("visibility_s", "lease_s"), [(0, 5), (5, 5), (30, 30), (60, 60), (43200, 60)])
def test_lease_is_the_visibility_timeout_within_bounds(moto: Cloud, visibility_s: int, lease_s: int) -> None:
    made = MadeQueue(name="tasks", url="http://127.0.0.1/tasks", dlq_name=None, dlq_url=None)
    assert sqs_queue(moto.clients, made, visibility_s=visibility_s).lease_s == lease_s


# failures


@pytest.fixture(params=["down", "denied"])
def broken(request: pytest.FixtureRequest) -> Iterator[tuple[SqsQueue, type[Unavailable]]]:
    with denying() as denied:
        url, error = (NOWHERE, Unavailable) if request.param == "down" else (denied, AccessDenied)
        with clients_for(url) as clients:
            patient_as_receive = dataclasses.replace(clients, sqs=clients.receive, keeper_sqs=clients.receive)
            made = MadeQueue(name="tasks", url=f"{url}/1/tasks", dlq_name="dlq", dlq_url=f"{url}/1/dlq")
            yield sqs_queue(patient_as_receive, made), error


def test_every_call_says_that_the_queue_does_not_answer(broken: tuple[SqsQueue, type[Unavailable]]) -> None:
    queue, error = broken
    message = Message(queue=0, message_id="m-1", receipt="r", body=BODY, sent_at_s=0.0, receive_count=1, received_s=0.0)
    calls: list[Callable[[], object]] = [
        lambda: queue.receive(10, wait_s=1),
        lambda: queue.extend(["r"]),
        lambda: queue.give_back(["r"], delay_s=0),
        lambda: queue.delete(["r"]),
        lambda: queue.refuse(message, WHY),
        lambda: discover(queue._clients.receive, "tasks", clock=SystemClock(), skew=SkewBounds()),
    ]
    for call in calls:
        with pytest.raises(Unavailable) as caught:
            call()
        assert type(caught.value) is error
    assert queue.extend([]) == queue.delete([]) == [], "nothing to do needs no answer"


def test_a_receive_is_sent_once_only() -> None:
    """A receive that is sent again after a lost answer orphans a batch for a whole lease."""
    attempts: list[str] = []

    def fail(_method: str, path: str, _body: bytes) -> tuple[int, bytes]:
        attempts.append(path)
        return 500, b'{"__type": "InternalError", "message": "we had a problem"}'

    with endpoint(fail) as url, clients_for(url) as clients:
        made = MadeQueue(name="tasks", url=f"{url}/1/tasks", dlq_name=None, dlq_url=None)
        with pytest.raises(Unavailable, match="receiving from"):
            sqs_queue(clients, made).receive(10, wait_s=1)
    assert len(attempts) == 1
