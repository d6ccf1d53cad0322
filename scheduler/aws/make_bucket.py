"""Makes the bucket of the pictures, closed to the public, or says how the one that is there differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from scheduler.aws import shape
from scheduler.aws.errors import code_of
from scheduler.aws.making import Making, Outcome, State

UNCONSTRAINED = "us-east-1"
"""The one region that CreateBucket does not take as a constraint."""


def make_bucket(making: Making, name: str) -> Iterator[Outcome]:
    """Make the bucket; one that is there is left as it is."""
    resource = f"bucket {name}"
    try:
        answer: Mapping[str, Any] = making.clients.s3.head_bucket(Bucket=name)
    except ClientError as error:
        if code_of(error) == "403":
            detail = "there is such a bucket, but not for these credentials: it may belong to somebody else"
            yield making.outcome(resource, State.REFUSED, detail)
            return
        if code_of(error) != "404":
            raise
    else:
        region = shape.bucket_region(answer)
        if region not in {None, making.clients.region}:
            detail = f"it lies in {region}, which cannot be changed: name another in conf.ini, or set aws_region"
            yield making.outcome(resource, State.DIFFERS, detail)
        else:
            yield making.outcome(resource, State.EXISTS, f"in {region}" if region else "")
        return
    yield _create(making, name, resource)


def _create(making: Making, name: str, resource: str) -> Outcome:
    s3, region = making.clients.s3, making.clients.region
    closed = f"in {region}, closed to the public, encrypted (SSE-S3)"
    if making.is_rehearsed:
        return making.outcome(resource, State.CREATED, closed)
    where: dict[str, Any] = {}
    if region != UNCONSTRAINED:
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.create_bucket(Bucket=name, **where)
    except ClientError as error:
        if code_of(error) == "BucketAlreadyExists":
            detail = "the name belongs to another account: choose another in conf.ini"
            return making.outcome(resource, State.REFUSED, detail)
        if code_of(error) != "BucketAlreadyOwnedByYou":  # another setup was faster
            raise
    s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    return making.outcome(resource, State.CREATED, closed)
