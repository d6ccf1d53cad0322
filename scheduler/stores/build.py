"""Stores by the configuration: for the daemon, and for those who submit tasks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from scheduler.aws.clients import Clients
from scheduler.config import Settings
from scheduler.domain import keys
from scheduler.domain.ports import Clock
from scheduler.stores.images import S3ImageStore
from scheduler.stores.submitted_tasks import SubmittedTasks
from scheduler.stores.tasks import DynamoTaskStore


def build_tasks(
    settings: Settings, clients: Clients, *, key_name: str, clock: Clock, instance_id: str
) -> DynamoTaskStore:
    """Return the records for a worker; `key_name` is what the table calls a task's id."""
    return DynamoTaskStore(
        clients.dynamodb,
        clients.keeper_dynamodb,
        settings.aws.dynamodb_table,
        key_name=key_name,
        clock=clock,
        address=address_of(settings),
        worker=socket.gethostname(),
        instance_id=instance_id,
        max_runs=settings.scheduler.max_runs,
        record_ttl_days=settings.scheduler.record_ttl_days,
    )


def build_submitted_tasks(settings: Settings, clients: Clients, *, key_name: str, clock: Clock) -> SubmittedTasks:
    """Return the records for those who submit; `key_name` is what the table calls a task's id."""
    return SubmittedTasks(
        clients.dynamodb,
        settings.aws.dynamodb_table,
        key_name=key_name,
        clock=clock,
        record_ttl_days=settings.scheduler.record_ttl_days,
    )


def build_images(settings: Settings, clients: Clients) -> S3ImageStore:
    """Return the bucket of the images."""
    return S3ImageStore(clients.s3, settings.aws.s3_bucket)


def address_of(settings: Settings) -> Callable[[str], str]:
    """Return what turns an image's key into the address that clients are given."""
    return partial(keys.address, bucket=settings.aws.s3_bucket, cloudfront_domain=settings.aws.cloudfront_domain)
