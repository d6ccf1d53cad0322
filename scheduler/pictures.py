"""Pictures as bytes: out of base64, recognised by content, proved whole; it knows no engine."""

from __future__ import annotations

import binascii
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from scheduler.domain.task import EngineImage

_BLACK_BYTES_PER_PIXEL = 1 / 20
"""A picture that compresses worse than this is not one colour, so that its pixels need no look."""

_MOST_URI_HEAD = 256
"""Bytes of a data URI within which its data must begin."""


class BadImage(Exception):
    """The bytes are no picture that can be used; the message says why."""


class TooManyPixels(BadImage):
    """The picture may be whole, but is larger than is looked into."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A file format by its names: the web's, the file system's."""

    media_type: str
    extension: str


@dataclass(frozen=True, slots=True)
class PictureKind(Kind):
    """One that Pillow reads, by its name there too."""

    pillow: str


PNG = PictureKind("image/png", ".png", "PNG")
JPEG = PictureKind("image/jpeg", ".jpg", "JPEG")
WEBP = PictureKind("image/webp", ".webp", "WEBP")
GIF = PictureKind("image/gif", ".gif", "GIF")
BMP = PictureKind("image/bmp", ".bmp", "BMP")
TIFF = PictureKind("image/tiff", ".tiff", "TIFF")
AVIF = PictureKind("image/avif", ".avif", "AVIF")
KINDS = (PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a picture's own header says."""

    kind: PictureKind
    width: int
    height: int


def from_base64(text: str | memoryview) -> bytes:
    """Return the bytes of bare base64 or of a ``data:`` URI, line breaks allowed. Raises BadImage."""
    try:
        encoded = text.encode("ascii") if isinstance(text, str) else text
        if bytes(encoded[:5]) == b"data:":
            encoded = encoded[bytes(encoded[:_MOST_URI_HEAD]).index(b",") + 1 :]
    except ValueError as error:
        raise BadImage(f"not base64: {error}") from error
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        pass
    try:
        return binascii.a2b_base64(b"".join(bytes(encoded).split()), strict_mode=True)
    except ValueError as error:
        raise BadImage(f"not base64: {error}".lower()) from error


def sniff(data: bytes) -> PictureKind | None:
    """Return the format by its first bytes, None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if data.startswith((b"II*\0", b"MM\0*")):
        return TIFF
    if data[4:12] in {b"ftypavif", b"ftypavis"}:
        return AVIF
    return BMP if data.startswith(b"BM") else None


def inspect(data: bytes, *, max_pixels: int, thorough: bool, is_input: bool = False) -> Inspected:
    """Return what `data` is, having looked at its size before any pixel is decoded. Raises BadImage, TooManyPixels.

    `is_input` is for what an engine will decode: the bound is for all frames together, and a PNG is decoded too, for
    checksums may be right over nonsense.

    A PNG of an engine's carries checksums, which are read through. Other formats carry none: `thorough` decodes them to
    find out whether they are whole.
    """
    kind = sniff(data)
    if kind is None:
        known = ", ".join(known.pillow for known in KINDS)
        raise BadImage(f"not an image ({len(data)} bytes, known formats: {known})" if data else "empty")
    with _translated(kind):
        picture = _open(data, kind)
    width, height = picture.size
    if width * height > max_pixels:
        raise TooManyPixels(f"{width} x {height} pixels, more than max_pixels ({max_pixels})")
    with _translated(kind):
        frames = getattr(picture, "n_frames", 1) if is_input else 1
    if frames * width * height > max_pixels:
        raise TooManyPixels(f"{frames} frames of {width} x {height} pixels, more than max_pixels ({max_pixels})")
    with _translated(kind), picture:
        if kind is PNG and not is_input:
            picture.verify()
        elif thorough or is_input:
            picture.load()
    return Inspected(kind, width, height)


def proved(data: bytes, *, max_pixels: int, seed: int | None) -> EngineImage:
    """Return an engine's picture with what it says of itself, having seen that it is whole. Raises BadImage."""
    seen = inspect(data, max_pixels=max_pixels, thorough=True)
    return EngineImage(
        data=data,
        media_type=seen.kind.media_type,
        extension=seen.kind.extension,
        width=seen.width,
        height=seen.height,
        seed=seed,
        all_black=is_all_black(data, seen),
    )


def small_jpeg(data: bytes, *, max_side: int) -> bytes:
    """Return a picture as a JPEG of at most `max_side` pixels a side. Raises BadImage."""
    kind = sniff(data)
    if kind is None:
        raise BadImage("not a picture of a known kind")
    out = io.BytesIO()
    with _translated(kind), _open(data, kind) as picture:
        picture.draft("RGB", (max_side, max_side))
        picture.thumbnail((max_side, max_side))
        picture.convert("RGB").save(out, "JPEG", quality=80)
    return out.getvalue()


def black_warning(number: int) -> str:
    """Return what a record says of an image, counted from 1, that is all black."""
    return f"image {number} is all black: often the VAE in half precision, or a safety filter"


def is_all_black(data: bytes, seen: Inspected) -> bool:
    """Tell whether every pixel is black; pixels are decoded only where the file is suspiciously small."""
    if len(data) > seen.width * seen.height * _BLACK_BYTES_PER_PIXEL + 1024:
        return False
    try:
        with _translated(seen.kind), _open(data, seen.kind) as picture:
            return picture.convert("RGB").getbbox() is None
    except BadImage:
        return False


@contextmanager
def _translated(kind: PictureKind) -> Iterator[None]:
    """Turn whatever a decoder raises over hostile bytes, which is nearly anything, into BadImage."""
    try:
        yield
    except Exception as error:
        raise BadImage(f"a broken {kind.pillow} image: {error}") from error


def _open(data: bytes, kind: PictureKind) -> Image.Image:
    # Only the plugin of the format that was recognised may run.
    return Image.open(io.BytesIO(data), formats=(kind.pillow,))
