"""Finds a queue and reads what it is like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from scheduler.aws import shape
from scheduler.aws.answers import understood
from scheduler.aws.described import Queue, read_queue
from scheduler.aws.errors import code_of

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient


def find_queue(sqs: SQSClient, name_or_url: str) -> Queue | None:
    """Return what a queue is like, None when there is none. Raises Unavailable."""
    with understood(f"asking about queue {name_or_url}"):
        try:
            url = name_or_url
            if "/" not in url:
                url = sqs.get_queue_url(QueueName=name_or_url)["QueueUrl"]
            return read_queue(url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])
        except ClientError as error:
            if code_of(error) in shape.NO_QUEUE:
                return None
            raise
