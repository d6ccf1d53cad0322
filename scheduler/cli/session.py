"""What a command at a terminal needs of AWS: the records, the first queue, addresses."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from scheduler.aws.clients import build
from scheduler.aws.errors import translated
from scheduler.config import load
from scheduler.domain import keys
from scheduler.domain.clock import SystemClock
from scheduler.domain.skew import SkewBounds
from scheduler.sqs_consumer import discover
from scheduler.stores.tasks import DynamoTaskStore, discover_key_name

LOCAL_CONFIG = Path(".local/conf.ini")
LOCAL_ENVIRONMENT = Path(".local/environment")


@dataclass(frozen=True, slots=True)
class Session:
    """`send` puts a message into the queue of the highest priority; `address` is where an image's key is found."""

    records: DynamoTaskStore
    send: Callable[[str], None]
    address: Callable[[str], str]


def enter_local() -> Path:
    """Take over the environment of the `sd-scheduler local` that runs in this folder; return its configuration."""
    if not LOCAL_ENVIRONMENT.exists():
        raise click.UsageError("no `sd-scheduler local` runs in this folder: start it, or leave --local away")
    for line in LOCAL_ENVIRONMENT.read_text().splitlines():
        name, _, value = line.partition("=")
        os.environ[name] = value
    return LOCAL_CONFIG


def open_session(config: Path | None, *, local: bool) -> Session:
    """Return a session by the configuration. Raises ConfigError, Unavailable."""
    settings = load(enter_local() if local else config, os.environ)
    aws = settings.aws
    clients = build(aws.aws_region, poll_interval_s=1, threads=2)
    clock = SystemClock()
    facts = discover(clients.sqs, aws.sqs_queue_url[0], clock=clock, skew=SkewBounds())

    def address(key: str) -> str:
        return keys.address(key, bucket=aws.s3_bucket, cloudfront_domain=aws.cloudfront_domain)

    def send(body: str) -> None:
        with translated(f"sending to {facts.url}"):
            clients.sqs.send_message(QueueUrl=facts.url, MessageBody=body)

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
    return Session(records, send, address)
