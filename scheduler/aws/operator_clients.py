"""The boto3 clients of the commands that a person runs (setup, doctor); the daemon's own are in `clients`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from scheduler.aws.errors import translated
from scheduler.domain.errors import AccessDenied

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient
    from types_boto3_sts import STSClient

NO_CREDENTIALS = (
    "no credentials found: give the instance a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorClients:
    """One client for each service; `iam` only simulates. `partition` is aws, aws-cn, ..., as ARNs begin.

    `sns` is for the region of the topic of ends.
    """

    region: str
    partition: str
    sqs: SQSClient
    dynamodb: DynamoDBClient
    s3: S3Client
    sts: STSClient
    iam: Any
    sns: Any


def build(region: str, *, topic_region: str | None = None) -> OperatorClients:
    """Build them for `region`, and for that of the topic of ends. Raises AccessDenied when there are no credentials,
    Unavailable for a broken profile.
    """
    with translated("reading the AWS credentials"):
        session = boto3.Session(region_name=region)
        if session.get_credentials() is None:
            raise AccessDenied(NO_CREDENTIALS)
        config = Config(
            connect_timeout=3,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 2},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return OperatorClients(
            region=region,
            partition=partition_of(region),
            sqs=session.client("sqs", config=config),
            dynamodb=session.client("dynamodb", config=config),
            s3=session.client("s3", config=config),
            sts=session.client("sts", config=config),
            iam=session.client("iam", config=config),
            sns=session.client("sns", region_name=topic_region or region, config=config),
        )


def partition_of(region: str) -> str:
    """Return how ARNs of a region begin: aws, aws-cn, ...; a region that botocore does not know counts as aws."""
    try:
        return boto3.Session().get_partition_for_region(region)
    except BotoCoreError:
        return "aws"
