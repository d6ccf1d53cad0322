"""The boto3 clients of what holds the workers, each built only where such a fleet is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from scheduler.aws.clients import CONNECT_TIMEOUT_S, WORK_READ_TIMEOUT_S
from scheduler.aws.errors import translated

if TYPE_CHECKING:
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_ec2 import EC2Client


def build_ec2(region: str) -> EC2Client:
    """Build the client for instances and Spot Fleets. Raises as `clients.build`."""
    with translated("reading the AWS credentials"):
        return _session(region).client("ec2", config=_config(attempts=2))


def build_autoscaling(region: str) -> AutoScalingClient:
    """Build the client for Auto Scaling groups. Raises as `clients.build`.

    It makes one attempt: the call that ends an instance lowers the target too, and is not to do so twice because its
    first answer was lost. Whoever makes it again has looked at the group before.
    """
    with translated("reading the AWS credentials"):
        return _session(region).client("autoscaling", config=_config(attempts=1))


def build_cloudwatch(region: str) -> CloudWatchClient:
    """Build the client for alarms, which only doctor reads. Raises as `clients.build`."""
    with translated("reading the AWS credentials"):
        return _session(region).client("cloudwatch", config=_config(attempts=2))


def _session(region: str) -> boto3.Session:
    session = boto3.Session(region_name=region)
    if session.get_credentials() is None:
        raise NoCredentialsError
    return session


def _config(*, attempts: int) -> Config:
    return Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=WORK_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=2,
        tcp_keepalive=True,
    )
