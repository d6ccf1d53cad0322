"""What those who submit tasks need of AWS: the records, the first queue, the pictures and their addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from scheduler.aws.clients import build
from scheduler.aws.errors import translated
from scheduler.config import Settings
from scheduler.domain import keys
from scheduler.domain.clock import SystemClock
from scheduler.domain.destinations import S3Address
from scheduler.domain.skew import SkewBounds
from scheduler.sqs_consumer import discover
from scheduler.stores.tasks import DynamoTaskStore, discover_key_name


@dataclass(frozen=True, slots=True)
class Session:
    """`send` puts a message into the queue of the highest priority; `address` is where an image's key is found.

    `bucket` holds the images; `fetch` returns the bytes of an object, by bucket and key, and raises Unavailable.
    """

    records: DynamoTaskStore
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

    def address(key: str) -> str:
        return keys.address(key, bucket=aws.s3_bucket, cloudfront_domain=aws.cloudfront_domain)

    def send(body: str) -> None:
        with translated(f"sending to {facts.url}"):
            clients.sqs.send_message(QueueUrl=facts.url, MessageBody=body)

    def fetch(wanted: S3Address) -> bytes:
        with (
            translated(f"fetching s3://{wanted.bucket}/{wanted.key}"),
            clients.s3.get_object(Bucket=wanted.bucket, Key=wanted.key)["Body"] as body,
        ):
            return body.read()

    records = DynamoTaskStore(
        clients.dynamodb,
        clients.keeper_dynamodb,
        aws.dynamodb_table,
        key_name=discover_key_name(clients.dynamodb, aws.dynamodb_table),
        clock=clock,
        address=address,
        worker=socket.gethostname(),
        max_runs=settings.scheduler.max_runs,
        record_ttl_days=settings.scheduler.record_ttl_days,
    )
    return Session(records, send, address, fetch, aws.s3_bucket)
