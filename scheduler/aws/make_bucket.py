"""Makes the bucket of the pictures, closed to the public, or says how the one that is there differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scheduler.aws.answers import understood
from scheduler.aws.described import bucket_region
from scheduler.aws.errors import code_of
from scheduler.aws.making import Making, Outcome, State
from scheduler.domain.errors import AccessDenied

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import (
        PublicAccessBlockConfigurationTypeDef,
        ServerSideEncryptionConfigurationTypeDef,
    )

UNCONSTRAINED = "us-east-1"
"""The one region that CreateBucket does not take as a constraint."""
CLOSED: PublicAccessBlockConfigurationTypeDef = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
ENCRYPTED: ServerSideEncryptionConfigurationTypeDef = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
}


def make_bucket(making: Making, name: str) -> Iterator[Outcome]:
    """Make the bucket; one that is there is left as it is."""
    resource = f"bucket {name}"
    region = _find(making, name)
    if region is None:
        yield _create(making, name, resource)
    elif region not in {"", making.clients.region}:
        detail = f"it lies in {region}, which cannot be changed: name another in conf.ini, or set aws_region"
        yield making.outcome(resource, State.DIFFERS, detail)
    else:
        yield making.outcome(resource, State.EXISTS, f"in {region}" if region else "")


def _find(making: Making, name: str) -> str | None:
    """Return the bucket's region, empty when S3 does not tell, or None when there is no such bucket.

    Raises AccessDenied, Unavailable.
    """
    with understood(f"looking for bucket {name}"):
        try:
            return bucket_region(making.clients.s3.head_bucket(Bucket=name)) or ""
        except ClientError as error:
            if code_of(error) == "404":
                return None
            if code_of(error) == "403":
                said = "there is such a bucket, but not for these credentials: it may belong to somebody else"
                raise AccessDenied(said) from error
            raise


def _create(making: Making, name: str, resource: str) -> Outcome:
    s3, region = making.clients.s3, making.clients.region
    closed = f"in {region}, closed to the public, encrypted (SSE-S3)"
    if making.is_rehearsed:
        return making.outcome(resource, State.CREATED, closed)
    where: dict[str, Any] = {}
    if region != UNCONSTRAINED:
        where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
    with understood(f"creating bucket {name}"):
        try:
            s3.create_bucket(Bucket=name, **where)
        except ClientError as error:
            if code_of(error) == "BucketAlreadyExists":
                detail = "the name belongs to another account: choose another in conf.ini"
                return making.outcome(resource, State.REFUSED, detail)
            if code_of(error) != "BucketAlreadyOwnedByYou":  # another setup was faster
                raise
    with understood(f"closing bucket {name}"):
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=CLOSED)
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration=ENCRYPTED)
    return making.outcome(resource, State.CREATED, closed)
