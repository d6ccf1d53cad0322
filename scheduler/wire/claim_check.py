"""A body too large for its queue, left in S3 by an extended client of AWS, which sends a pointer in its place.

The Java and Python clients write ``["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName", "s3Key"}]``,
the older ones ``["com.amazon.sqs.javamessaging.MessageS3Pointer", {...}]``; repackaged clients put a prefix before the
name. An attribute of the message tells the body's size: ``ExtendedPayloadSize``, of old ``SQSLargePayloadSize``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.wire.fields import mapping, wrong

CLASSES = frozenset({"PayloadS3Pointer", "MessageS3Pointer"})
SIZE_ATTRIBUTES = ("ExtendedPayloadSize", "SQSLargePayloadSize")
MAX_KEY_BYTES = 1024
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Where a body lies. `size_bytes` is what its sender says of it, None where nothing is said.

    `sns_id` is SNS's id of the message that held the pointer.
    """

    bucket: str
    key: str
    size_bytes: int | None = None
    sns_id: str | None = None

    @property
    def address(self) -> str:
        """The body's S3 URI."""
        return f"s3://{self.bucket}/{self.key}"


def looks_like(body: object) -> bool:
    """Tell whether `body` means to be a pointer."""
    match body:
        case [str() as name, _]:
            return name.rpartition(".")[2] in CLASSES
        case _:
            return False


def parse(body: list[object], *, attributes: Mapping[str, str], sns_id: str | None) -> Pointer:
    """Return the pointer, or raise Rejected naming the field. `attributes` are the message's, by name."""
    found = mapping(body[1], "body.1", "with s3BucketName and s3Key")
    bucket, key = found.get("s3BucketName"), found.get("s3Key")
    if not isinstance(bucket, str) or not _BUCKET.fullmatch(bucket):
        raise wrong("s3BucketName", bucket, "must be the name of a bucket")
    if not isinstance(key, str) or not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        raise wrong("s3Key", key, f"must be a key of 1 to {MAX_KEY_BYTES} bytes")
    return Pointer(bucket=bucket, key=key, size_bytes=declared_bytes(attributes), sns_id=sns_id)


def declared_bytes(attributes: Mapping[str, str]) -> int | None:
    """Return the body's size as the attributes of a message tell it, None when they do not."""
    told = next((attributes[name] for name in SIZE_ATTRIBUTES if name in attributes), "")
    return int(told) if re.fullmatch(r"[0-9]{1,15}", told) else None
