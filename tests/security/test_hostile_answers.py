"""What servers may answer, tried against real ones on loopback: redirects inwards, endless and false bodies, bombs."""

from __future__ import annotations

import gzip
import io
import itertools
import socket
import ssl
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import pytest
from fakes.web_server import ADDRESS, Reply, WebServer, answering, redirecting, web_server
from PIL import Image

from scheduler.domain.destinations import Guard
from scheduler.domain.errors import Counts, Rejected, Transient
from scheduler.guarded_http import GuardedHttp, Resolve
from scheduler.stores.inputs import FetchedInputs

FIELD = "payload.mask"
MAX_BYTES = 100_000
MAX_PIXELS = 1 << 20


def picture(fmt: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(out, fmt)
    return out.getvalue()


GOOD = picture()
TLS = ssl.create_default_context()


def never_asked(host: str, _port: int, _within_s: float) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


def inputs_for(
    *servers: WebServer,
    resolve: Resolve = never_asked,
    timeout_s: float = 20.0,
    monotonic: Callable[[], float] = float,
    allow_hosts: Sequence[str] = (),
) -> FetchedInputs:
    """Inputs that may go to `servers` and to nothing else that is private; time stands still."""
    http = GuardedHttp(Guard([*(server.authority for server in servers), *allow_hosts]), resolve=resolve, tls=TLS)
    return FetchedInputs(
        http=http,
        s3=None,  # type: ignore[arg-type]  # nothing here is S3's
        buckets=["pictures"],
        max_bytes=MAX_BYTES,
        max_pixels=MAX_PIXELS,
        timeout_s=timeout_s,
        monotonic=monotonic,
    )


def refusal(reply: Reply) -> Rejected:
    with web_server(reply) as server:
        with pytest.raises(Rejected) as caught:
            inputs_for(server).image(server.url(), field=FIELD)
        assert len(server.requests) >= 1
    assert caught.value.field == FIELD
    return caught.value


# redirects

INWARDS = {
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "loopback by name": "http://localhost/",
    "loopback by number": "http://2130706433/",
    "loopback over ipv6": "http://[::1]/",
    "loopback mapped": "http://[::ffff:127.0.0.1]/",
    "another port": "http://127.0.0.1:1/",
    "private": "http://10.0.0.1/",
    "private without a scheme": "//10.0.0.1/",
    "a file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_INFO",
    "a bucket": "s3://pictures/a.png",
    "data": "data:image/png;base64,AAAA",
    "a login": "http://ann:secret@example.com/",
    "a user that looks like a host": "http://example.com@127.0.0.1/",
    "a backslash": "http://example.com\\@127.0.0.1/",
    "a tab": "/a\tb",
    "a control character": "/a\x01b",
    "a host in fullwidth": "http://\u00ef\u00bc\u0091.0.0.1/",
    "a broken address": "http://[::1/",
    "no host": "http:///etc/passwd",
    "a port that is none": "http://example.com:99999/",
    "a name of the inside": "http://metadata.google.internal/",
}


@pytest.mark.parametrize("location", INWARDS.values(), ids=INWARDS)
def test_a_redirect_is_judged_like_the_address_itself(location):
    assert "secret" not in str(refusal(redirecting(location)))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_kind_of_redirect_is_judged(status):
    assert "never gone to" in str(refusal(redirecting("http://169.254.169.254/", status)))


def test_a_redirect_to_a_name_that_leads_inwards_is_not_followed():
    with web_server(redirecting("http://pictures.example/")) as server:
        inputs = inputs_for(server, resolve=lambda *_: ["10.0.0.1"])
        with pytest.raises(Rejected, match="private"):
            inputs.image(server.url(), field=FIELD)


def test_a_redirect_without_an_address_is_refused():
    assert "nowhere" in str(refusal(answering(b"", status="302 Found")))


def test_redirects_end_after_the_fifth():
    with web_server(redirecting("/again")) as server:
        with pytest.raises(Rejected, match="more than 5 redirects"):
            inputs_for(server).image(server.url(), field=FIELD)
        assert len(server.requests) == 6


def test_an_answer_of_the_dns_that_differs_the_next_time_is_judged_again():
    asked: list[str] = []

    def resolve(host: str, _port: int, _within_s: float) -> list[str]:
        asked.append(host)
        return [ADDRESS] if len(asked) == 1 else ["10.0.0.1"]

    with web_server(redirecting("/again")) as server:
        inputs = inputs_for(server, resolve=resolve)
        with pytest.raises(Rejected, match="private"):
            inputs.image(f"http://rebinding.example:{server.port}/", field=FIELD)
        assert asked == ["rebinding.example"] * 2
        assert len(server.requests) == 1


def test_the_connection_goes_to_the_address_that_was_judged():
    answers = iter([[ADDRESS]])  # another question would have no answer
    with web_server(answering(GOOD)) as server:
        inputs = inputs_for(server, resolve=lambda *_: next(answers))
        assert inputs.image(f"http://rebinding.example:{server.port}/", field=FIELD).data == GOOD
        assert f"Host: rebinding.example:{server.port}\r\n".encode() in server.requests[0]


# what is no HTTP, or too much of it


def endless(head: str, piece: bytes) -> Reply:
    return lambda _head: itertools.chain([head.encode()], itertools.repeat(piece))


def chunked(pieces: Iterator[bytes]) -> Reply:
    return lambda _head: itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], pieces)


def header_bomb(_head: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%d: a\r\n" % n for n in range(5000)), b"\r\n"]


TOO_MUCH: dict[str, Reply] = {
    "endless body": endless("HTTP/1.1 200 OK\r\n\r\n", b"a" * 8192),
    "endless body that tells a small length in the wrong way": endless(
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"a" * 8192
    ),
    "endless body with two lengths": endless("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", b"a" * 8192),
    "endless chunks": chunked(itertools.repeat(b"400\r\n" + b"a" * 1024 + b"\r\n")),
    "endless tiny chunks": chunked(itertools.repeat(b"1\r\na\r\n" * 1000)),
    "chunks beside a length": endless(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"a" * 1024 + b"\r\n"
    ),
    "one chunk of all there is": chunked(itertools.chain([b"ffffffffffff\r\n"], itertools.repeat(b"a" * 8192))),
    "a chunk of a negative size": chunked(iter([b"-5\r\nhello\r\n0\r\n\r\n"])),
    "endless chunk extension": chunked(itertools.chain([b"1;"], itertools.repeat(b"a" * 8192))),
    "endless trailers": chunked(itertools.chain([b"0\r\n"], itertools.repeat(b"X: a\r\n" * 1000))),
    "endless headers": endless("HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 1000),
    "endless header": endless("HTTP/1.1 200 OK\r\nX: ", b"a" * 8192),
    "endless status line": endless("HTTP/1.1 200 ", b"a" * 8192),
    "endless interim answers": endless("", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "five thousand headers": header_bomb,
    "length above the bound": answering(GOOD, f"Content-Length: {MAX_BYTES + 1}"),
    "length above any memory": answering(GOOD, "Content-Length: 999999999999999999"),
    "one byte too many": answering(b"a" * (MAX_BYTES + 1)),
    "another protocol": lambda _head: [b"SSH-2.0-OpenSSH_9.6\r\n"],
    "a database": lambda _head: [b"-ERR wrong number of arguments\r\n"],
    "a body without a head": lambda _head: [GOOD],
    "a status that is no number": lambda _head: [b"HTTP/1.1 two OK\r\n\r\n"],
    "a status out of range": lambda _head: [b"HTTP/1.1 99 Low\r\n\r\n"],
    "a change of protocol": answering(b"", status="101 Switching Protocols"),
}


@pytest.mark.parametrize("reply", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_or_no_http_is_refused(reply):
    refusal(reply)


BOMB = zlib.compress(b"\0" * (32 << 20), 9)
COMPRESSED: dict[str, Reply] = {
    "gzip bomb": answering(gzip.compress(b"\0" * (32 << 20)), "Content-Encoding: gzip"),
    "deflate bomb": answering(BOMB, "Content-Encoding: deflate"),
    "gzip of a good picture": answering(gzip.compress(GOOD), "Content-Encoding: gzip"),
    "in capitals": answering(gzip.compress(GOOD), "Content-Encoding: GZIP"),
    "twice": answering(gzip.compress(gzip.compress(GOOD)), "Content-Encoding: gzip, gzip"),
    "beside identity": answering(gzip.compress(GOOD), "Content-Encoding: identity, gzip"),
    "in two headers": answering(GOOD, "Content-Encoding: identity", "Content-Encoding: gzip"),
    "brotli": answering(GOOD, "Content-Encoding: br"),
    "zstandard": answering(GOOD, "Content-Encoding: zstd"),
    "by transfer": answering(gzip.compress(GOOD), "Transfer-Encoding: gzip"),
    "without a word": answering(gzip.compress(GOOD)),
}


@pytest.mark.parametrize("reply", COMPRESSED.values(), ids=COMPRESSED)
def test_what_was_compressed_unasked_is_refused_and_never_unpacked(reply):
    refusal(reply)


# what is no picture, or more of one than fits


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header says so, with right checksums."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    told = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(200))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in told
    )


def frames_of(fmt: str) -> bytes:
    """A small file of so many small pictures that they are too many pixels, should an engine decode them all."""
    side = 128
    first, *rest = (Image.new("1", (side, side), n % 2) for n in range(MAX_PIXELS // side**2 + 1))
    out = io.BytesIO()
    compressed = {"compression": "group4"} if fmt == "TIFF" else {}
    first.save(out, fmt, save_all=True, append_images=rest, **compressed)
    return out.getvalue()


NO_PICTURES = {
    "nothing": b"",
    "text": b"hello",
    "html": b"<!DOCTYPE html><img src=a.png>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "pdf": b"%PDF-1.7\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
    "zip": b"PK\x03\x04" + bytes(100),
    "executable": b"\x7fELF" + bytes(100),
    "json": b'{"Code": "Success", "SecretAccessKey": "a"}',
    "only the first bytes of a png": GOOD[:8],
    "png cut short": GOOD[: len(GOOD) // 2],
    "png with a byte changed": GOOD[:200] + bytes([GOOD[200] ^ 1]) + GOOD[201:],
    "png of 10^10 pixels": png_of(100_000, 100_000),
    "png of one line of 2^31 pixels": png_of((1 << 31) - 1, 1),
    "png of one pixel too many": png_of(MAX_PIXELS + 1, 1),
    "png with checksums and without its pixels": png_of(64, 64),
    "png with a bomb for a profile": png_of(8, 8, (b"iCCP", b"a\0\0" + BOMB)),
    "png with a bomb for a text": png_of(8, 8, (b"zTXt", b"a\0\0" + BOMB)),
    "jpeg cut short": picture("JPEG")[:900],
    "jpeg of too many pixels": picture("JPEG", (64, 48)).replace(b"\x00\x30\x00\x40", b"\xff\xff\xff\xff", 1),
    "gif of too many pixels": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
    "bmp of too many pixels": b"BM"
    + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp with a negative size": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, -9, 9, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif of too many frames": frames_of("GIF"),
    "tiff of too many frames": frames_of("TIFF"),
    "webp of too many frames": frames_of("WEBP"),
    "png of too many frames": frames_of("PNG"),
    "webp of nothing": b"RIFF\x04\0\0\0WEBP",
    "tiff that points to itself": b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0",
    "avif of nothing": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    "picture of another format": picture("PPM"),
    "icon": picture("ICO"),
}


@pytest.mark.parametrize("body", NO_PICTURES.values(), ids=NO_PICTURES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_or_more_than_fits_is_refused(body):
    # Whatever the server calls it.
    error = refusal(answering(body, "Content-Type: image/png"))
    assert "cannot be used" in str(error)


def test_a_length_that_is_too_small_leaves_no_picture():
    refusal(lambda _head: [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", GOOD])


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 402, 403, 404, 405, 407, 410, 418, 451])
def test_an_answer_that_stays_so_fails_the_task_at_once(status):
    assert f"answered {status}" in str(refusal(answering(b"", status=f"{status} Words")))


# what may pass


def passing(inputs: FetchedInputs, address: str) -> Transient:
    with pytest.raises(Transient) as caught:
        inputs.image(address, field=FIELD)
    assert (caught.value.counts, caught.value.field) == (Counts.TRY, FIELD)
    return caught.value


BROKEN: dict[str, Reply] = {
    **{f"status {status}": answering(b"", status=f"{status} Words") for status in (408, 425, 429, 500, 502, 503, 504)},
    "no answer": lambda _head: [],
    "half a head": lambda _head: [b"HTTP/1.1 200 OK\r\nContent-Le"],
    "half a body": answering(GOOD, f"Content-Length: {len(GOOD) + 1}"),
    "half a chunk": chunked(iter([b"400\r\naaa"])),
    "chunks without an end": chunked(iter([b"3\r\naaa\r\n"])),
    "chunk of no size": chunked(iter([b"x\r\n"])),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_what_breaks_off_or_is_busy_counts_a_try(reply):
    with web_server(reply) as server:
        passing(inputs_for(server), server.url())


def ticking() -> Callable[[], float]:
    """A clock on which every look takes a second."""
    return map(float, itertools.count()).__next__


def drops(head: bytes, piece: bytes) -> Reply:
    """Send `head`, then `piece` for ever, each of them only when the one before has been taken from the wire."""
    return lambda _head: itertools.chain([head], itertools.repeat(piece))


SLOW: dict[str, Reply] = {
    "dripping status line": drops(b"", b"H"),
    "dripping header": drops(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "dripping headers": drops(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n"),
    "dripping interim answers": drops(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "dripping body": drops(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"a"),
    "dripping chunks": drops(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
}


@pytest.mark.parametrize("reply", SLOW.values(), ids=SLOW)
def test_drops_do_not_add_up_beyond_the_time(reply, monkeypatch):
    # However much lies ready, a drop at a time is read.
    read = socket.socket.recv_into
    monkeypatch.setattr(socket.socket, "recv_into", lambda sock, buffer: read(sock, buffer[:1]))
    with web_server(reply) as server:
        inputs = inputs_for(server, timeout_s=30.0, monotonic=ticking())
        assert "within 30 s" in str(passing(inputs, server.url()))


SILENT: dict[str, Reply] = {
    "no head": lambda _head: [None],
    "half a head": lambda _head: [b"HTTP/1.1 200 OK\r\n", None],
    "no body": lambda _head: [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", None],
    "half a body": lambda _head: [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\naa", None],
}


@pytest.mark.parametrize("reply", SILENT.values(), ids=SILENT)
def test_silence_is_waited_for_no_longer_than_the_time(reply):
    with web_server(reply) as server:
        assert "within 0.1 s" in str(passing(inputs_for(server, timeout_s=0.1), server.url()))


def test_redirects_share_the_time():
    with web_server(redirecting("/again")) as server:
        passing(inputs_for(server, timeout_s=9.0, monotonic=ticking()), server.url())
        assert len(server.requests) < 6


def test_a_host_that_refuses_connections_counts_a_try():
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
    inputs = inputs_for(allow_hosts=[f"{ADDRESS}:{port}"])
    assert "no connection" in str(passing(inputs, f"http://{ADDRESS}:{port}/"))


def test_a_name_that_cannot_be_looked_up_counts_a_try():
    def resolve(*_: object) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert "looked up" in str(passing(inputs_for(resolve=resolve), "http://pictures.example/"))


def test_a_name_without_addresses_counts_a_try():
    passing(inputs_for(resolve=lambda *_: []), "http://pictures.example/")


def test_an_address_that_is_silent_or_closed_leaves_the_next_of_the_same_host():
    with web_server(answering(GOOD)) as server:
        inputs = inputs_for(server, resolve=lambda *_: ["127.0.0.2", ADDRESS], allow_hosts=["127.0.0.2"])
        assert inputs.image(f"http://two.example:{server.port}/", field=FIELD).data == GOOD
