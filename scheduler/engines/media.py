"""Videos and sounds as bytes, recognised by content; it knows no engine. Pictures are the business of `pictures`."""

from __future__ import annotations

from scheduler.pictures import Kind

MP4 = Kind("video/mp4", ".mp4")
MOV = Kind("video/quicktime", ".mov")
WEBM = Kind("video/webm", ".webm")
MKV = Kind("video/x-matroska", ".mkv")
AVI = Kind("video/x-msvideo", ".avi")
M4A = Kind("audio/mp4", ".m4a")
MP3 = Kind("audio/mpeg", ".mp3")
WAV = Kind("audio/wav", ".wav")
FLAC = Kind("audio/flac", ".flac")
OGG = Kind("audio/ogg", ".ogg")
KINDS = (MP4, MOV, WEBM, MKV, AVI, M4A, MP3, WAV, FLAC, OGG)

_HEAD_BYTES = 64
"""Within these a Matroska file says whether it is WebM."""
_MP3_FRAME, _MP3_MASK = 0xFFE0, 0xFFE0
_BRANDS = {b"qt  ": MOV, b"M4A ": M4A, b"M4B ": M4A}
_PICTURES = frozenset({b"avif", b"avis", b"heic", b"heix", b"mif1"})
"""Pictures in the container of videos."""


def sniff(data: bytes) -> Kind | None:
    """Return the format by its first bytes, None for anything else."""
    if data[4:8] == b"ftyp":
        return None if data[8:12] in _PICTURES else _BRANDS.get(data[8:12], MP4)
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"webm" in data[:_HEAD_BYTES] else MKV
    if data[:4] == b"RIFF":
        return {b"AVI ": AVI, b"WAVE": WAV}.get(data[8:12])
    if data.startswith(b"fLaC"):
        return FLAC
    if data.startswith(b"OggS"):
        return OGG
    is_mp3 = data.startswith(b"ID3") or (
        len(data) > 2 and int.from_bytes(data[:2]) & _MP3_MASK == _MP3_FRAME and data[1] & 0x06 and data[2] >> 4 != 0xF
    )
    return MP3 if is_mp3 else None
