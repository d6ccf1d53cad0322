"""Inputs that tasks name by address: fetched over HTTP or from S3 behind a guard, proved to be pictures, kept."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scheduler.config import Settings
from scheduler.domain.destinations import Forbidden, Guard, read_s3, shown
from scheduler.domain.errors import Counts, Rejected, Transient, Unavailable
from scheduler.domain.ports import InputImage
from scheduler.guarded_http import BadAnswer, Deadline, GuardedHttp, NoAnswer
from scheduler.pictures import BadImage, inspect
from scheduler.stores.input_cache import InputCache
from scheduler.stores.s3_objects import read_object

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


def build_inputs(settings: Settings) -> FetchedInputs:
    """Return inputs as the settings bound them, without a client of S3 yet."""
    inputs = settings.inputs
    return FetchedInputs(
        http=GuardedHttp(Guard(inputs.allow_hosts)),
        buckets=settings.input_buckets,
        max_bytes=inputs.max_bytes,
        max_pixels=settings.scheduler.max_pixels,
        timeout_s=inputs.timeout_s,
    )


POINT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=")
"""A PNG of one pixel."""


class FetchedInputs:
    """The `Inputs` port over HTTP and S3.

    `s3` may be given later, by `use`. `buckets` are the only ones that are read. `max_bytes` and `timeout_s` bound one
    input, all its redirects included; `max_pixels` bounds a picture before any of its pixels is decoded.
    """

    def __init__(
        self,
        *,
        http: GuardedHttp,
        s3: S3Client | None = None,
        buckets: Collection[str],
        max_bytes: int,
        max_pixels: int,
        timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._s3 = s3
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._cache = InputCache(monotonic)

    def use(self, s3: S3Client) -> None:
        """Read from S3 with this client from now on."""
        self._s3 = s3

    def image(self, address: str, *, field: str) -> InputImage:
        """Return the picture at `address`, fetched or as it was a few minutes ago. Raises as the port says."""
        with self._cache.turn(address):
            image = self._cache.at(address)
            if image is None:
                image = self._verified(self.read(address, field=field, max_bytes=self._max_bytes), address, field)
                self._cache.keep(address, image)
        return image

    def read(self, address: str, *, field: str, max_bytes: int) -> bytes:
        """Return what lies at `address` now. Raises as the port says."""
        deadline = Deadline(self._timeout_s, self._monotonic)
        with _said_of(field):
            if address[:5].lower() == "s3://":
                wanted = read_s3(address, self._buckets)
                if self._s3 is None:
                    raise Unavailable("AWS has not answered yet")
                return read_object(self._s3, wanted, deadline=deadline, max_bytes=max_bytes)
            return self._http.fetch(address, deadline=deadline, max_bytes=max_bytes)

    def _verified(self, data: bytes, address: str, field: str) -> InputImage:
        sha256 = hashlib.sha256(data).hexdigest()
        if known := self._cache.known(sha256):
            return known
        try:
            seen = inspect(data, max_pixels=self._max_pixels, thorough=True, is_input=True)
        except BadImage as error:
            raise Rejected(f"{field}: what lies at {shown(address)} cannot be used: {error}", field=field) from error
        return InputImage(
            data=data,
            media_type=seen.kind.media_type,
            extension=seen.kind.extension,
            width=seen.width,
            height=seen.height,
            sha256=sha256,
        )


class JudgedInputs:
    """The `Inputs` port by addresses alone: refuses what would be refused, fetches nothing,
    and has a point for each.
    """

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(settings.inputs.allow_hosts)
        self._buckets = frozenset(settings.input_buckets)

    def image(self, address: str, *, field: str) -> InputImage:
        """Return a picture of one pixel. Raises Rejected."""
        self.read(address, field=field, max_bytes=0)
        return InputImage(data=POINT, media_type="image/png", extension=".png", width=1, height=1, sha256="")

    def read(self, address: str, *, field: str, max_bytes: int) -> bytes:
        """Return nothing. Raises Rejected."""
        _ = max_bytes
        with _said_of(field):
            if address[:5].lower() == "s3://":
                read_s3(address, self._buckets)
            else:
                self._guard.read(address)
        return b""


@contextmanager
def _said_of(field: str) -> Iterator[None]:
    """Say what came of an address in the terms of the task that named it."""
    try:
        yield
    except (Forbidden, BadAnswer) as error:
        raise Rejected(f"{field}: {error}", field=field) from error
    except NoAnswer as error:
        raise Transient(f"{field}: {error}", counts=Counts.TRY, field=field) from error
