"""Videos and sounds by their first bytes; pictures and pages are neither."""

import io
import struct

import pytest
from PIL import Image

from scheduler.engines.media import AVI, FLAC, M4A, MKV, MOV, MP3, MP4, OGG, WAV, WEBM, sniff

EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypisom\0\0\2\0", MP4),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", MP4),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", MOV),
        (b"\0\0\0\x14ftypM4A \0\0\0\0", M4A),
        (EBML + b"webm", WEBM),
        (EBML + b"matroska", MKV),
        (b"RIFF\0\0\0\0AVI LIST", AVI),
        (b"RIFF\0\0\0\0WAVEfmt ", WAV),
        (b"fLaC\0\0\0\x22", FLAC),
        (b"OggS\0\2", OGG),
        (b"ID3\4\0\0", MP3),
        (b"\xff\xfb\x90\x64", MP3),
        (b"\xff\xf3\x40\xc0", MP3),
    ],
)
def test_known_kinds(data, kind):
    assert sniff(data) is kind


def picture(form):
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"<html>",
        b"RIFF",
        b"\xff\xff\xff\xff",
        struct.pack(">I", 24) + b"ftypavif",
        *map(picture, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")),
    ],
)
def test_what_is_neither(data):
    assert sniff(data) is None
