"""Announcements over a real topic, bucket and table of two emulators:
what a subscribed queue gets, and what lies in S3.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from aws_servers import Cloud, MadeQueue, one_attempt_client, unique
from fakes import FakeWebhooks
from fakes.endpoint import endpoint

from scheduler.announcing import Announcer
from scheduler.domain.clock import SystemClock
from scheduler.domain.ends import End
from scheduler.domain.errors import AccessDenied, Unavailable, Unstorable
from scheduler.domain.keys import run_mark
from scheduler.domain.task import Claim, EngineImage, Failure, Message, Result, Task
from scheduler.notify.sns import MAX_MESSAGE_BYTES, SnsTopic
from scheduler.observe.metrics import Metrics
from scheduler.stores.images import S3ImageStore
from scheduler.stores.tasks import DynamoTaskStore
from scheduler.wire.recognise import recognise

T = TypeVar("T")
CONTEXT = {"order": [77, None, {"käfer": 1.5, "": "猫"}]}
PICTURE = EngineImage(data=b"\x89PNG", media_type="image/png", extension=".png", width=8, height=8, seed=11)
REFUSED = Failure(kind="rejected", message="no such sampler", engine='{"detail": "no such sampler"}')


def eks_task(kind: str = "text-to-image", content: Any = None) -> Task:
    told = {"id": "t1", "tasktype": kind, "prefix": "out", "context": CONTEXT}
    found = recognise(json.dumps({"metadata": told, "content": content or {"prompt": "A dog"}}))
    assert isinstance(found, Task)
    return found


class Place:
    """A topic with a queue that subscribes to it, a table and a bucket."""

    def __init__(self, cloud: Cloud, *, raw: bool) -> None:
        self.clients = cloud.clients
        self.queue: MadeQueue = cloud.queue(dlq=False)
        self.bucket, self.table = cloud.bucket(), cloud.table()
        self.topic_arn = self.clients.sns.create_topic(Name=unique("results"))["TopicArn"]
        asked = self.clients.sqs.get_queue_attributes(QueueUrl=self.queue.url, AttributeNames=["QueueArn"])
        self.clients.sns.subscribe(
            TopicArn=self.topic_arn,
            Protocol="sqs",
            Endpoint=asked["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": str(raw).lower()},
        )
        self.tasks = DynamoTaskStore(
            self.clients.dynamodb,
            self.clients.keeper_dynamodb,
            self.table,
            key_name="task_id",
            clock=SystemClock(),
            address=str,
            worker="w",
            max_runs=3,
            record_ttl_days=90,
        )
        self.images = S3ImageStore(self.clients.s3, self.bucket)
        self.announcer = Announcer(
            tasks=self.tasks,
            images=self.images,
            bucket=self.bucket,
            address=str,
            topic=SnsTopic(self.clients.sns, self.topic_arn),
            webhooks=FakeWebhooks(),
            metrics=Metrics(),
        )

    def claim(self, task: Task) -> Claim:
        message = Message(queue=0, message_id="m", receipt="r", body="", sent_at_s=1.0, receive_count=1, received_s=0.0)
        claim = self.tasks.claim(task, message, owner="o", lease_s=30)
        assert isinstance(claim, Claim)
        return claim

    def received(self) -> list[dict[str, Any]]:
        found = self.clients.sqs.receive_message(
            QueueUrl=self.queue.url, WaitTimeSeconds=5, MessageAttributeNames=["All"]
        )
        return [dict(message) for message in found.get("Messages", [])]

    def object(self, uri: str) -> tuple[str, Any]:
        key = uri.removeprefix(f"s3://{self.bucket}/")
        answer = self.clients.s3.get_object(Bucket=self.bucket, Key=key)
        with answer["Body"] as body:
            return answer["ContentType"], json.loads(body.read())


def once(call: Callable[[], T]) -> T:
    return call()


def test_success_comes_in_the_original_s_shape_with_its_object(cloud: Cloud) -> None:
    place, task = Place(cloud, raw=False), eks_task()
    claim = place.claim(task)
    stem = f"out/t1/t1-{run_mark('t1', 1)}"
    result = Result(images=(place.images.put(f"{stem}-1.png", PICTURE),))
    place.tasks.complete(claim, task, result)
    end = End(task=task, status="completed", outcome=result, attempt=claim.attempt, at_s=1.0)
    place.announcer.announce(end, once)
    [message] = place.received()
    envelope = json.loads(message["Body"])
    assert not envelope.get("MessageAttributes")
    assert not envelope.get("Subject")
    assert json.loads(envelope["Message"]) == {
        "id": "t1",
        "result": True,
        "image_url": [f"s3://{place.bucket}/{stem}-1.png"],
        "output_url": f"s3://{place.bucket}/{stem}.out",
        "context": CONTEXT,
    }
    assert place.object(f"s3://{place.bucket}/{stem}.out") == (
        "application/json",
        {
            "images": [""],
            "parameters": {"prompt": "A dog", "id_task": "t1", "image_seed": "11", "error_msg": ""},
            "info": "",
        },
    )
    assert "announced_at" in place.tasks.read(["t1"])["t1"]


@pytest.mark.parametrize(
    ("kind", "content", "beside"),
    [
        ("pipeline", {"1": {"class_type": "SaveImage", "inputs": {}}}, {"code": 500}),
        (
            "text-to-image",
            None,
            {
                "images": [""],
                "parameters": {
                    "id_task": "t1",
                    "status": 0,
                    "error_msg": "no such sampler",
                    "reason": {"detail": "no such sampler"},
                },
                "info": "",
            },
        ),
    ],
)
def test_failure_comes_with_its_object_too(moto: Cloud, kind: str, content: Any, beside: Any) -> None:
    place, task = Place(moto, raw=True), eks_task(kind, content)
    claim = place.claim(task)
    place.tasks.fail(claim, task, REFUSED)
    place.announcer.announce(End(task=task, status="failed", outcome=REFUSED, attempt=claim.attempt, at_s=1.0), once)
    [message] = place.received()
    told = json.loads(message["Body"])
    assert (told["result"], told["image_url"], told["context"]) == (False, [], CONTEXT)
    assert place.object(told["output_url"]) == ("application/json", beside)


def test_a_task_of_our_own_carries_its_name_beside(cloud: Cloud) -> None:
    place = Place(cloud, raw=True)
    task = recognise(json.dumps({"task_id": "t1", "task_type": "txt2img", "payload": {}, "context": CONTEXT}))
    assert isinstance(task, Task)
    claim = place.claim(task)
    place.tasks.fail(claim, task, REFUSED)
    end = End(task=task, status="failed", outcome=REFUSED, attempt=claim.attempt, at_s=1.0)
    place.announcer.announce(end, once)
    [message] = place.received()
    told = {"id": "t1", "result": False, "image_url": [], "output_url": None, "context": CONTEXT}
    assert json.loads(message["Body"]) == told
    assert message["MessageAttributes"]["announcement_id"]["StringValue"] == end.id


def error_xml(code: str, said: str) -> bytes:
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>{said}</Message></Error></ErrorResponse>".encode()


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, error_xml("InvalidParameter", "Invalid parameter: Message too long"), Unstorable),
        (400, error_xml("InvalidParameter", "Invalid parameter: TopicArn"), Unavailable),
        (404, error_xml("NotFound", "Topic does not exist"), Unavailable),
        (403, error_xml("AuthorizationError", "User: ann is not authorized to perform: SNS:Publish"), AccessDenied),
        (200, b"<html>a proxy</html>", Unavailable),
    ],
)
def test_what_a_topic_says_is_understood(status: int, answer: bytes, kind: type[Exception]) -> None:
    with (
        endpoint(lambda *_: (status, answer)) as url,
        one_attempt_client("sns", url) as client,
        pytest.raises(kind) as caught,
    ):
        SnsTopic(client, "arn:aws:sns:us-east-1:123456789012:results").publish({"id": "t1"}, named=None)
    assert type(caught.value) is kind


def test_what_is_too_large_for_sns_is_not_even_tried() -> None:
    with pytest.raises(Unstorable):
        SnsTopic(None, "arn:aws:sns:us-east-1:123456789012:results").publish(
            {"context": "x" * MAX_MESSAGE_BYTES}, named=None
        )
