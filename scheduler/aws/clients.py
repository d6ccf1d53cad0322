"""The boto3 clients of the daemon's work, each built once with the time limits of its job.

The endpoint variables `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>` are boto3's own and work here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from scheduler.aws.errors import translated

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient

WORK_READ_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """One client for each job; all are safe to share between threads.

    A resent receive would orphan a batch, so `receive` makes one attempt only and waits out its long poll. The
    keeper's clients are its own, so that no slow upload stands before a renewal, and give up soon.
    """

    receive: SQSClient
    sqs: SQSClient
    dynamodb: DynamoDBClient
    s3: S3Client
    keeper_sqs: SQSClient
    keeper_dynamodb: DynamoDBClient
    sns: Any = None
    """For the region of the topic; None where there is no topic."""


def build(region: str, *, poll_interval_s: int, threads: int, topic_region: str | None = None) -> Clients:
    """Build the clients for `region`; `threads` is how many may call one of them at once.

    `topic_region` is where the topic of ends lies, if there is one.

    Raises AccessDenied when there are no credentials, Unavailable when they cannot be read, ConfigError for an
    endpoint variable that is no address.
    """
    with translated("reading the AWS credentials"):
        return _build(region, poll_interval_s=poll_interval_s, threads=threads, topic_region=topic_region)


def _build(region: str, *, poll_interval_s: int, threads: int, topic_region: str | None) -> Clients:
    session = boto3.Session(region_name=region)
    if session.get_credentials() is None:
        raise NoCredentialsError
    work = _config(connect_s=CONNECT_TIMEOUT_S, read_s=WORK_READ_TIMEOUT_S, attempts=3, connections=threads)
    keeper = _config(connect_s=2, read_s=3, attempts=2, connections=2)
    receive = _config(
        connect_s=CONNECT_TIMEOUT_S, read_s=poll_interval_s + WORK_READ_TIMEOUT_S, attempts=1, connections=threads
    )
    return Clients(
        receive=session.client("sqs", config=receive),
        sqs=session.client("sqs", config=work),
        dynamodb=session.client("dynamodb", config=work),
        s3=session.client("s3", config=work),
        keeper_sqs=session.client("sqs", config=keeper),
        keeper_dynamodb=session.client("dynamodb", config=keeper),
        sns=session.client("sns", region_name=topic_region, config=work) if topic_region else None,
    )


def _config(*, connect_s: float, read_s: float, attempts: int, connections: int) -> Config:
    return Config(
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        # The pictures carry their sha256; a second checksum over the same bytes buys nothing.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # We send what this code wrote; checking its shape again costs more than a tenth of a call.
        parameter_validation=False,
        tcp_keepalive=True,
    )
