"""What a worker asks AWS for before it begins: clients, its queues as they are, and the name of its table's key."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from scheduler.aws.addresses import topic_region
from scheduler.aws.clients import Clients, build
from scheduler.config import Settings
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock
from scheduler.domain.skew import SkewBounds
from scheduler.sqs_consumer import SqsQueue, discover
from scheduler.stores.record_table import discover_key_name

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What AWS answered; `key_name` is what the table calls a task's id."""

    clients: Clients
    queues: list[SqsQueue]
    key_name: str


def connect(settings: Settings, *, threads: int, clock: Clock, skew: SkewBounds) -> Connection:
    """Ask once; `threads` is how many may call one client at once. Raises Unavailable.

    The clients are built anew by each call: one that found no credentials when it was built never looks again.
    """
    aws = settings.aws
    clients = build(
        aws.aws_region,
        poll_interval_s=settings.scheduler.poll_interval,
        threads=threads,
        topic_region=topic_region(settings.notify.sns_topic_arn),
    )
    queues = []
    for index, name in enumerate(aws.sqs_queue_url):
        facts = discover(clients.sqs, name, clock=clock, skew=skew)
        if facts.dlq_url is None:
            log.warning("queue_without_dlq", queue=facts.url, refused_go_to=f"s3://{aws.s3_bucket}/rejected/")
        queues.append(SqsQueue(clients, facts, index=index, bucket=aws.s3_bucket, clock=clock, skew=skew))
    key_name = discover_key_name(clients.dynamodb, aws.dynamodb_table)
    return Connection(clients=clients, queues=queues, key_name=key_name)


def look_again(connection: Connection, settings: Settings, *, clock: Clock, skew: SkewBounds) -> None:
    """Ask for a queue's facts once more, for each answer of AWS's bounds how far this host's clock is off."""
    try:
        discover(connection.clients.sqs, settings.aws.sqs_queue_url[0], clock=clock, skew=skew)
    except Unavailable as error:
        log.warning("aws_unavailable", error=str(error))
