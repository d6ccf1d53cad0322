"""Pictures: recognised by content, proved whole, bounded before they are decoded."""

import base64
import io

import pytest
from PIL import Image

from scheduler.pictures import JPEG, PNG, BadImage, from_base64, inspect, is_all_black, sniff


def picture(fmt="PNG", size=(64, 48), colour=(200, 10, 30), mode="RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, fmt)
    return out.getvalue()


@pytest.mark.parametrize(
    ("fmt", "media_type", "extension"),
    [
        ("PNG", "image/png", ".png"),
        ("JPEG", "image/jpeg", ".jpg"),
        ("WEBP", "image/webp", ".webp"),
        ("GIF", "image/gif", ".gif"),
        ("BMP", "image/bmp", ".bmp"),
        ("TIFF", "image/tiff", ".tiff"),
    ],
)
def test_format_is_told_by_content(fmt, media_type, extension):
    seen = inspect(picture(fmt), max_pixels=10_000, thorough=True)
    assert (seen.kind.media_type, seen.kind.extension) == (media_type, extension)
    assert (seen.width, seen.height) == (64, 48)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_cut_short_is_broken(fmt):
    noisy = io.BytesIO()
    Image.effect_noise((128, 128), 90).convert("RGB").save(noisy, fmt)
    data = noisy.getvalue()
    with pytest.raises(BadImage, match="broken"):
        inspect(data[: len(data) * 2 // 3], max_pixels=1 << 20, thorough=True)


def test_one_flipped_byte_breaks_a_png():
    data = bytearray(picture())
    data[len(data) // 2] ^= 0x40
    with pytest.raises(BadImage):
        inspect(bytes(data), max_pixels=10_000, thorough=True)


def test_size_is_judged_before_pixels_are_decoded():
    # A header that claims 60000 x 60000 pixels: decoding it would take 10 GB.
    bomb = bytearray(picture(size=(1, 1)))
    bomb[16:24] = (60000).to_bytes(4) * 2
    with pytest.raises(BadImage):
        inspect(bytes(bomb), max_pixels=1 << 25, thorough=True)
    with pytest.raises(BadImage, match=r"64 x 48 pixels, more than max_pixels \(3071\)"):
        inspect(picture(), max_pixels=64 * 48 - 1, thorough=True)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP", b"GIF89a"]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(BadImage):
        inspect(data, max_pixels=1 << 20, thorough=True)


def test_base64_bare_wrapped_and_as_data_uri():
    data = picture()
    bare = base64.b64encode(data).decode()
    assert from_base64(bare) == data
    assert from_base64(base64.encodebytes(data).decode()) == data
    assert from_base64(f"data:image/png;base64,{bare}") == data
    assert from_base64(memoryview(f"data:image/png;base64,{bare}".encode())) == data


@pytest.mark.parametrize("text", ["nope!", "abc", "data:image/png;base64", "Ünïcode", "====", "YWJj\x00"])
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(BadImage, match="not base64"):
        from_base64(text)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_all_black(mode):
    black = {"RGB": (0, 0, 0), "RGBA": (0, 0, 0, 255), "L": 0}[mode]
    data = picture(size=(512, 512), colour=black, mode=mode)
    assert is_all_black(data, inspect(data, max_pixels=1 << 20, thorough=True))


def test_one_bright_pixel_is_not_all_black():
    canvas = Image.new("RGB", (512, 512))
    canvas.putpixel((400, 3), (0, 0, 1))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    assert not is_all_black(out.getvalue(), inspect(out.getvalue(), max_pixels=1 << 20, thorough=True))


def test_one_colour_that_is_not_black():
    data = picture(size=(512, 512))
    assert not is_all_black(data, inspect(data, max_pixels=1 << 20, thorough=True))


def test_sniffing_trusts_bytes_only():
    assert sniff(picture("JPEG")) is JPEG
    assert sniff(picture()) is PNG
    assert sniff(b"<svg/>") is None
