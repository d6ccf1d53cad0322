"""What those who submit tasks need of AWS: the records, the first queue, the pictures and their addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.aws.clients import build
from scheduler.aws.errors import translated
from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.destinations import S3Address
from scheduler.domain.skew import SkewBounds
from scheduler.sqs_consumer import discover
from scheduler.stores.build import address_of, build_submitted_tasks
from scheduler.stores.record_table import discover_key_name
from scheduler.stores.submitted_tasks import SubmittedTasks


@dataclass(frozen=True, slots=True)
class Session:
    """`send` puts a message into the queue of the highest priority; `address` is where an image's key is found.

    `bucket` holds the images; `fetch` returns the bytes of an object, by bucket and key, and raises Unavailable.
    """

    records: SubmittedTasks
    send: Callable[[str], None]
    address: Callable[[str], str]
    fetch: Callable[[S3Address], bytes]
    bucket: str


def open_session(settings: Settings) -> Session:
    """Return a session by the configuration. Raises Unavailable."""
    aws = settings.aws
    clients = build(aws.aws_region, poll_interval_s=1, threads=2)
    clock = SystemClock()
    facts = discover(clients.sqs, aws.sqs_queue_url[0], clock=clock, skew=SkewBounds())

    def send(body: str) -> None:
        with translated(f"sending to {facts.url}"):
            clients.sqs.send_message(QueueUrl=facts.url, MessageBody=body)

    def fetch(wanted: S3Address) -> bytes:
        with (
            translated(f"fetching s3://{wanted.bucket}/{wanted.key}"),
            clients.s3.get_object(Bucket=wanted.bucket, Key=wanted.key)["Body"] as body,
        ):
            return body.read()

    key_name = discover_key_name(clients.dynamodb, aws.dynamodb_table)
    return Session(
        records=build_submitted_tasks(settings, clients, key_name=key_name, clock=clock),
        send=send,
        address=address_of(settings),
        fetch=fetch,
        bucket=aws.s3_bucket,
    )
