"""Objects of S3 that somebody else named, bounded in bytes and in time; which may be read was judged before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from scheduler.aws.answers import require_aws, understood
from scheduler.aws.errors import code_of
from scheduler.domain.destinations import S3Address
from scheduler.guarded_http import BadAnswer, Deadline, NoAnswer

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CHUNK_BYTES = 1 << 20
MISSING = frozenset(
    {
        *(
            "AccessDenied",
            "AllAccessDisabled",
            "AuthorizationHeaderMalformed",
            "InvalidBucketName",
            "InvalidObjectState",
        ),
        *("KeyTooLongError", "MethodNotAllowed", "NoSuchBucket", "NoSuchKey", "PermanentRedirect", "403", "404"),
    }
)
"""Codes that are about the object: without s3:ListBucket S3 says AccessDenied of one that is not there."""
_BUSY = frozenset(
    {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException", "429"}
)


def read_object(client: S3Client, address: S3Address, *, deadline: Deadline, max_bytes: int) -> bytes:
    """Return the bytes of an object.

    Raises BadAnswer for one that is not there, may not be read or is too large, NoAnswer when S3 is too busy or too
    slow for it, Unavailable for what is wrong with AWS or with this host's credentials.
    """
    name = f"s3://{address.bucket}/{address.key}"
    with understood(f"reading {name}"):
        try:
            answer = client.get_object(Bucket=address.bucket, Key=address.key)
            require_aws(answer)
            with answer["Body"] as body:
                if answer["ContentLength"] > max_bytes:
                    raise BadAnswer(f"{name} has {answer['ContentLength']} bytes; {max_bytes} are the most")
                return _read(body.read, deadline, max_bytes)
        except ClientError as error:
            code = code_of(error)
            if code in MISSING:
                raise BadAnswer(f"{name} is not there, or this worker's role may not read it ({code})") from error
            if code in _BUSY:
                raise NoAnswer(f"{name} cannot be read now ({code})") from error
            raise
        except TimeoutError as error:
            raise NoAnswer(f"{name} was not read within {deadline.within_s:g} s") from error


def _read(read: Callable[[int], bytes], deadline: Deadline, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := read(min(CHUNK_BYTES, max_bytes + 1 - len(data))):
        data += chunk
        if len(data) > max_bytes:
            raise BadAnswer(f"more than {max_bytes} bytes")
        deadline.left_s()
    return bytes(data)
