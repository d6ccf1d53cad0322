"""The stand-in's way to S3: pictures that requests point at, results that it leaves there."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class JobFailed(Exception):
    """A job cannot go on; the words are those that its client is shown."""


def connect(endpoint: str | None) -> S3Client:
    """Return a client for `endpoint`, by default for what boto3's own settings name."""
    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client("s3", endpoint_url=endpoint, config=config)


class Bucket:
    """Where results go; safe for threads."""

    def __init__(self, client: S3Client, name: str) -> None:
        self._client = client
        self._name = name

    def fetch(self, address: str) -> Image.Image:
        """Return the picture at an ``s3://`` address. Raises JobFailed; what lies elsewhere is out of reach here."""
        scheme, _, rest = address.partition("://")
        name, _, key = rest.partition("/")
        if scheme != "s3":
            raise JobFailed(f"Failed to download image {address}: a stand-in reaches nothing beyond S3")
        try:
            body = self._client.get_object(Bucket=name, Key=key)["Body"]
            with body:
                return Image.open(io.BytesIO(body.read())).convert("RGB")
        except (ClientError, BotoCoreError) as error:
            raise JobFailed(f"Failed to download image {address}: {error}") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise JobFailed(f"cannot identify image file {address}: {error}") from error

    def store(self, name: str, picture: Image.Image) -> str:
        """Store a PNG and return its address. Raises JobFailed."""
        out = io.BytesIO()
        picture.save(out, "PNG", compress_level=1)
        key = f"results/{name}.png"
        try:
            self._client.put_object(Bucket=self._name, Key=key, Body=out.getvalue(), ContentType="image/png")
        except (ClientError, BotoCoreError) as error:
            raise JobFailed(f"Failed to upload result: {error}") from error
        return f"s3://{self._name}/{key}"
