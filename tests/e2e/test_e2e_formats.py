"""Every format on every engine that it can name, however it gets into the queue: one daemon, one run for each cloud."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import orders
import pytest
from aws_servers import REGION, Cloud, unique
from daemon_process import Daemon
from fakes.web_server import answering, web_server
from orders import Inputs, Order
from PIL import Image
from waiting import until
from world import World

from scheduler.local.comfy.process import ComfyOptions, ComfyProcess
from scheduler.local.jobapi.process import JobApiOptions, JobApiProcess
from scheduler.local.standin.process import StandinOptions, StandinProcess

INPUT_KEY, POINTED_AT = "uploads/in.png", "pointed-at/"
POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"
OLD_POINTER = "com.amazon.sqs.javamessaging.MessageS3Pointer"
Post = Callable[[Mapping[str, Any] | list[Any]], None]


@contextmanager
def working(world: World) -> Iterator[Inputs]:
    """One daemon with an engine of each kind, and the inputs that it may fetch."""
    world.cloud.clients.s3.put_object(Bucket=world.bucket, Key=INPUT_KEY, Body=orders.input_png())
    with ExitStack() as running:
        webui = running.enter_context(StandinProcess(StandinOptions(seconds_per_step=0.001, switch_seconds=0.01)))
        comfy = running.enter_context(ComfyProcess(ComfyOptions(seconds_per_step=0.001, switch_seconds=0.01)))
        jobs = JobApiProcess(JobApiOptions(bucket=world.bucket, s3_endpoint=world.cloud.url, seconds_per_step=0.001))
        running.enter_context(jobs)
        pictures = running.enter_context(web_server(answering(orders.input_png(), "Content-Type: image/png")))
        conf = world.conf(
            webui.base_url,
            engines={
                orders.EXTRA_RUNTIME: f"sdwebui {webui.base_url}",
                "comfyui": f"comfyui {comfy.base_url}",
                "job_api": f"job_api {jobs.base_url}",
            },
            inputs={"allow_hosts": pictures.authority},
        )
        daemon = running.enter_context(Daemon(conf, world.cloud.environ))
        yield Inputs(s3=f"s3://{world.bucket}/{INPUT_KEY}", http=pictures.url())
        assert daemon.stop() == 0, daemon.tail()


def topic_to(world: World, *, raw: bool) -> Post:
    """Make a topic with a subscription of the queue; return what publishes to it."""
    sqs = world.cloud.clients.sqs
    arn = sqs.get_queue_attributes(QueueUrl=world.queue.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    # One after the other would each replace the policy; the queue belongs to the test, and its topics may all send.
    statement = {"Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement | {"Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=world.queue.url, Attributes={"Policy": policy})
    sns = boto3.client(
        "sns",
        region_name=REGION,
        endpoint_url=world.cloud.url,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    topic = sns.create_topic(Name=unique("input"))["TopicArn"]
    sns.subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true" if raw else "false"}
    )
    attributes: Any = {"runtime": {"DataType": "String", "StringValue": "sdwebui"}}

    def publish(body: Mapping[str, Any] | list[Any]) -> None:
        sns.publish(TopicArn=topic, Message=json.dumps(body), MessageAttributes=attributes)

    return publish


def left_in_s3(world: World, order: Order, name: str) -> list[Any]:
    """Leave a body in the bucket as AWS's extended clients do; return what they send in its place."""
    key = POINTED_AT + order.task_id
    world.cloud.clients.s3.put_object(Bucket=world.bucket, Key=key, Body=json.dumps(order.body).encode())
    return [name, {"s3BucketName": world.bucket, "s3Key": key}]


def sent_every_way(world: World, inputs: Inputs) -> list[Order]:
    """Send one of every kind straight, and one of each format through each of the other ways; return them all."""
    enveloped, raw = topic_to(world, raw=False), topic_to(world, raw=True)
    ways: dict[str, tuple[list[Order], Callable[[Order], None]]] = {
        "straight": (orders.every_kind(inputs), lambda order: world.send(order.body)),
        "in an envelope": (orders.one_of_each_format(inputs), lambda order: enveloped(order.body)),
        "delivered raw": (orders.one_of_each_format(inputs), lambda order: raw(order.body)),
        "behind a pointer": (
            orders.one_of_each_format(inputs),
            lambda order: world.send(json.dumps(left_in_s3(world, order, POINTER))),
        ),
        "behind a pointer in an envelope": (
            orders.v1alpha2(inputs)[:1],
            lambda order: enveloped(left_in_s3(world, order, OLD_POINTER)),
        ),
        "in a task": (orders.v1alpha2(inputs)[:1], lambda order: enveloped({"task": order.body})),
    }
    sent = []
    for way, (all_of_it, send) in ways.items():
        for order in all_of_it:
            if order.record:
                item: Any = {name: {"S": value} for name, value in order.record.items()}
                world.cloud.clients.dynamodb.put_item(TableName=world.table, Item=item)
            send(order)
            sent.append(replace(order, name=f"{order.name}, {way}"))
    return sent


def until_idle(world: World, *task_ids: str) -> None:
    """Return when these tasks have an end and no message is left."""

    def is_over() -> bool:
        records = world.records()
        ends = (records.get(task_id, {}).get("status") for task_id in task_ids)
        return world.counts() == (0, 0) and all(end in {"completed", "failed", "cancelled"} for end in ends)

    until(is_over, 60, what="the end of all work", every_s=0.2)


def picture(data: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


def assert_came(world: World, order: Order, record: Mapping[str, Any]) -> set[str]:
    """Check what came of an order; return the keys of its pictures."""
    assert record["status"] == "completed", (order.name, record)
    assert record["runs"] == 1, (order.name, record)
    assert record.get("checkpoint", "").startswith(order.checkpoint), (order.name, record)
    if order.key is None:
        assert record["job_type"] == order.body["api_path"]
        bucket, _, key = record["result_s3_uri"].removeprefix("s3://").partition("/")
        assert bucket == world.bucket
        assert key == f"results/{record['comfy_job_id']}.png"
        keys = [key]
    else:
        keys = [image["key"] for image in record["images"]]
        for n, key in enumerate(keys, start=1):
            assert re.fullmatch(order.key.format(id=re.escape(order.task_id), n=n), key), (order.name, key)
    seen = [picture(world.picture(key)) for key in keys]
    assert tuple(each.size for each in seen) == order.sizes, order.name
    for each in seen:
        if order.prompt:
            assert str(each.info["parameters"]).splitlines()[0] == order.prompt, order.name
        if order.colour:
            assert each.convert("RGB").getpixel((3, 3)) == order.colour, order.name
    return set(keys)


def pictures_in(world: World) -> set[str]:
    """Return the keys of what was made, without what the test itself put there."""
    return {key for key in world.object_keys() if key.endswith(".png") and key != INPUT_KEY}


@pytest.mark.slow
def test_every_format_on_every_engine_however_it_comes(cloud: Cloud, tmp_path: Path) -> None:
    world = World.made(cloud, tmp_path)
    with working(world) as inputs:
        sent = sent_every_way(world, inputs)
        until_idle(world, *(order.task_id for order in sent))

        records = world.records()
        assert set(records) == {order.task_id for order in sent}
        made = set().union(*(assert_came(world, order, records[order.task_id]) for order in sent))
        assert pictures_in(world) == made
        assert world.counts(world.queue.dlq_url) == (0, 0), world.dead_letters()

        # Clients of Stable Diffusion on EKS use their ids again, for whatever they like.
        for version in (orders.v1alpha1, orders.v1alpha2):
            name = f"{version(inputs)[0].name}, straight"
            (again,) = (order for order in sent if order.name == name)
            asks_anew(world, again, records[again.task_id])
        assert world.counts(world.queue.dlq_url) == (0, 0), world.dead_letters()


def asks_anew(world: World, order: Order, before: Mapping[str, Any]) -> None:
    """Send another request under the id of one that is done, and see it have a run of its own."""
    words = f"{order.prompt} anew"
    body = json.loads(json.dumps(order.body).replace(str(order.prompt), words))
    world.send(body)
    until(lambda: world.record(order.task_id).get("run_no", 1) == 2, what="another run")
    until_idle(world, order.task_id)

    record = world.record(order.task_id)
    assert (record["status"], record["run_no"], record["runs"]) == ("completed", 2, 1), record
    (now,), (then,) = record["images"], before["images"]
    assert now["key"] != then["key"]
    assert re.fullmatch(str(order.key).format(id=order.task_id, n=1), now["key"])
    assert str(picture(world.picture(now["key"])).info["parameters"]).splitlines()[0] == words
    assert str(picture(world.picture(then["key"])).info["parameters"]).splitlines()[0] == order.prompt
