"""PNGs of a realistic weight that cost nearly nothing each: it knows pixels and base64, no HTTP."""

from __future__ import annotations

import base64
import random
import struct
import zlib

MAX_TEXT_BYTES = 1000
_LOW_BITS = bytes(0x60 | value & 0x0F for value in range(256))
"""Keeps four random bits of each byte, so that 512 x 512 pixels compress to about 400 KB, as photographs do."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class Painter:
    """Paints one picture for each size and gives every copy its own text.

    Base64 maps three bytes to four characters, and a PNG's signature and IHDR chunk are 33 bytes together. With the
    text chunk after them padded to a multiple of three, the pixels need to be encoded only once for each size.
    """

    def __init__(self) -> None:
        self._encoded: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def picture(self, width: int, height: int, text: str) -> tuple[bytes, bytes, bytes]:
        """Return base64 of a PNG in three parts; `text` is its `parameters`, where A1111 puts prompt and seed."""
        before, after = self._pixels(width, height)
        data = b"parameters\0" + text.encode("latin-1", "replace")[:MAX_TEXT_BYTES]
        return before, base64.b64encode(_chunk(b"tEXt", data.ljust(-(-len(data) // 3) * 3))), after

    def _pixels(self, width: int, height: int) -> tuple[bytes, bytes]:
        size = (width, height)
        if size not in self._encoded:
            noise = random.Random(width << 16 | height)
            lines = (b"\0" + noise.randbytes(3 * width).translate(_LOW_BITS) for _ in range(height))
            header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            pixels = _chunk(b"IDAT", zlib.compress(b"".join(lines), 1))
            self._encoded[size] = (
                base64.b64encode(b"\x89PNG\r\n\x1a\n" + header),
                base64.b64encode(pixels + _chunk(b"IEND", b"")),
            )
        return self._encoded[size]
