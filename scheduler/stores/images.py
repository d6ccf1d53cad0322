"""Pictures in S3, and what is told beside them: each written once, whatever is run again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scheduler.aws.answers import require_aws, understood
from scheduler.aws.errors import code_of
from scheduler.domain.task import EngineImage, StoredImage
from scheduler.stores.s3_objects import MISSING

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CACHE_CONTROL = "public, max-age=31536000, immutable"
"""A key never changes its content, so that CloudFront and browsers may keep it for a year."""
CONFLICT_ATTEMPTS = 5
NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class S3ImageStore:
    """Writes pictures under `If-None-Match: *` and reads back what is already there."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, image: EngineImage) -> StoredImage:
        """Store `image` under `key` unless something lies there, and return what lies there now.

        Raises Unavailable when S3 does not answer; nothing is lost by calling it again.
        """
        digest = hashlib.sha256(image.data).digest()
        stored = StoredImage(
            key=key,
            media_type=image.media_type,
            size_bytes=len(image.data),
            sha256=digest.hex(),
            width=image.width,
            height=image.height,
            seed=image.seed,
        )
        numbers = {"width": image.width, "height": image.height, "seed": image.seed}
        metadata = {name: str(number) for name, number in numbers.items() if number is not None}
        metadata["sha256"] = stored.sha256
        with understood(f"storing s3://{self._bucket}/{key}"):
            is_new = self._write(key, image.data, media_type=image.media_type, digest=digest, metadata=metadata)
            return stored if is_new else self._read(key)

    def put_json(self, key: str, value: Mapping[str, Any]) -> None:
        """Store `value` as JSON under `key` unless something lies there. Raises Unavailable, Unstorable."""
        data = json.dumps(value).encode()
        with understood(f"storing s3://{self._bucket}/{key}"):
            digest = hashlib.sha256(data).digest()
            self._write(key, data, media_type="application/json", digest=digest, metadata={"sha256": digest.hex()})

    def read_json(self, key: str) -> Any:
        """Return the value that lies under `key`, None when nothing does or nothing may be read. Raises Unavailable."""
        with understood(f"reading s3://{self._bucket}/{key}"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if code_of(error) in MISSING:
                    return None
                raise
            with answer["Body"] as body:
                return json.loads(body.read())

    def _write(self, key: str, data: bytes, *, media_type: str, digest: bytes, metadata: Mapping[str, str]) -> bool:
        """Write an object; False when one lies there already."""
        for last in (*(False,) * (CONFLICT_ATTEMPTS - 1), True):
            try:
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=data,
                    ContentType=media_type,
                    CacheControl=CACHE_CONTROL,
                    ChecksumSHA256=base64.b64encode(digest).decode(),
                    IfNoneMatch="*",
                    Metadata=metadata,
                )
            except ClientError as error:
                code = code_of(error)
                if code == "PreconditionFailed":
                    return False
                if code != "ConditionalRequestConflict" or last:
                    raise
            else:
                require_aws(answer)
                break
        return True

    def show(self, key: str, jpeg: bytes) -> None:
        """Put a picture in the making under `key`, in place of the one before. Raises Unavailable."""
        with understood(f"showing s3://{self._bucket}/{key}"):
            answer = self._client.put_object(
                Bucket=self._bucket, Key=key, Body=jpeg, ContentType="image/jpeg", CacheControl="no-store"
            )
            require_aws(answer)

    def hide(self, key: str) -> None:
        """Take a picture in the making away. Raises Unavailable."""
        with understood(f"removing s3://{self._bucket}/{key}"):
            require_aws(self._client.delete_object(Bucket=self._bucket, Key=key))

    def _read(self, key: str) -> StoredImage:
        head = self._client.head_object(Bucket=self._bucket, Key=key)
        require_aws(head)
        metadata = head["Metadata"]
        return StoredImage(
            key=key,
            media_type=head["ContentType"],
            size_bytes=head["ContentLength"],
            sha256=metadata.get("sha256", ""),
            width=_number(metadata.get("width")),
            height=_number(metadata.get("height")),
            seed=_number(metadata.get("seed")),
        )


def _number(text: str | None) -> int | None:
    """Return a number from metadata; what somebody else wrote there may be anything."""
    return int(text) if text is not None and NUMBER.fullmatch(text) else None
