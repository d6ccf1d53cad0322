"""Inputs by address as they should be: over HTTP and HTTPS from servers on loopback, from S3 in the emulators."""

from __future__ import annotations

import hashlib
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aws_servers import NOWHERE, Cloud, one_attempt_client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fakes import FakeClock
from fakes.endpoint import DENIED_XML, endpoint
from fakes.web_server import ADDRESS, WebServer, answering, in_turn, redirecting, web_server
from PIL import Image

from scheduler import guarded_http
from scheduler.domain.destinations import Forbidden, Guard
from scheduler.domain.errors import AccessDenied, Counts, Rejected, Transient, Unavailable
from scheduler.domain.ports import Inputs
from scheduler.guarded_http import Deadline, GuardedHttp, NoAnswer, Resolve
from scheduler.stores.input_cache import FRESH_S
from scheduler.stores.inputs import FetchedInputs

FIELD = "payload.init_images.0"
MAX_BYTES = 1 << 20
PLAIN_TLS = ssl.create_default_context()


def picture(colour: str = "red", fmt: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, fmt)
    return out.getvalue()


GOOD = picture()


def found(_host: str, _port: int, _within_s: float) -> Sequence[str]:
    return [ADDRESS]


def http_for(*allow_hosts: str, resolve: Resolve = found, tls: ssl.SSLContext = PLAIN_TLS) -> GuardedHttp:
    return GuardedHttp(Guard(allow_hosts), resolve=resolve, tls=tls)


def inputs_for(
    *servers: WebServer,
    http: GuardedHttp | None = None,
    s3: object = None,
    buckets: Sequence[str] = (),
    monotonic: Callable[[], float] = float,
    timeout_s: float = 20.0,
) -> FetchedInputs:
    return FetchedInputs(
        http=http or http_for(*(server.authority for server in servers)),
        s3=s3,  # type: ignore[arg-type]  # where there is none, none is used
        buckets=buckets,
        max_bytes=MAX_BYTES,
        max_pixels=1 << 20,
        timeout_s=timeout_s,
        monotonic=monotonic,
    )


# over HTTP


@pytest.mark.parametrize(
    ("fmt", "media_type", "extension"),
    [("PNG", "image/png", ".png"), ("JPEG", "image/jpeg", ".jpg"), ("WEBP", "image/webp", ".webp")],
)
def test_a_good_picture_comes_with_what_its_header_says(fmt, media_type, extension):
    body = picture(fmt=fmt)
    with web_server(answering(body, "Content-Type: text/html")) as server:
        inputs: Inputs = inputs_for(server)
        image = inputs.image(server.url(), field=FIELD)
    assert (image.data, image.sha256) == (body, hashlib.sha256(body).hexdigest())
    assert (image.media_type, image.extension, image.width, image.height) == (media_type, extension, 64, 48)


def test_chunks_and_a_body_that_ends_with_the_connection_are_read_whole():
    half = len(GOOD) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (GOOD[:half], GOOD[half:], b""))
    for told in (answering(chunks, "Transfer-Encoding: chunked"), lambda _: [b"HTTP/1.0 200 OK\r\n\r\n", GOOD]):
        with web_server(told) as server:
            assert inputs_for(server).image(server.url(), field=FIELD).data == GOOD


def test_the_request_says_who_asks_and_nothing_of_this_host(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {ADDRESS}\nlogin ann\npassword secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    with web_server(answering(GOOD, "Set-Cookie: a=b")) as server:
        inputs = inputs_for(server)
        for path in ("/ä b.png?x=1&y=%20#part", "/second.png"):
            inputs.image(server.url(path), field=FIELD)
    assert [head.decode() for head in server.requests] == [
        f"GET {target} HTTP/1.1\r\nHost: {server.authority}\r\nUser-Agent: sd-scheduler\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
        for target in ("/%C3%A4%20b.png?x=1&y=%20", "/second.png")
    ]


def test_five_redirects_are_followed_to_other_hosts_and_relative_ones():
    def reply(head: bytes) -> list[bytes]:
        hops = {
            b"/0": "/1",
            b"/1": "2?a",
            b"/2?a": f"http://other.example:{server.port}/3",
            b"/3": f"//third.example:{server.port}/4",
            b"/4": "/5#part",
        }
        path = head.split()[1]
        return list(redirecting(hops[path])(head) if path in hops else answering(GOOD)(head))

    with web_server(reply) as server:
        assert inputs_for(server).image(server.url("/0"), field=FIELD).data == GOOD
    hosts = [head.split(b"Host: ")[1].split(b":")[0].decode() for head in server.requests]
    assert hosts == [ADDRESS, ADDRESS, ADDRESS, "other.example", "third.example", "third.example"]


def test_a_private_host_is_opened_by_name_by_address_and_by_network():
    with web_server(answering(GOOD)) as server:
        for opening, host in [
            ("minio", "minio"),
            (f"minio:{server.port}", "minio"),
            ("MINIO", "Minio"),
            ("127.0.0.1", "pictures.example"),
            (f"127.0.0.1:{server.port}", "127.0.0.1"),
            ("127.0.0.0/8", "pictures.example"),
        ]:
            inputs = inputs_for(http=http_for(opening))
            assert inputs.image(f"http://{host}:{server.port}/a.png", field=FIELD).data == GOOD
            with pytest.raises(Rejected):
                inputs.image(f"http://elsewhere:{server.port}/a.png", field=FIELD)


# over HTTPS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of pictures.example, which vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pictures.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pictures.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "pictures.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def secure(authority: Path) -> Iterator[WebServer]:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(authority)
    with web_server(answering(GOOD), tls=served) as server:
        yield server


def test_a_certificate_is_verified_against_the_name_and_not_the_address(secure, authority):
    trusted = ssl.create_default_context(cafile=str(authority))
    inputs = inputs_for(http=http_for(ADDRESS, tls=trusted))
    assert inputs.image(f"https://pictures.example:{secure.port}/a.png", field=FIELD).data == GOOD
    for host in ("other.example", ADDRESS):
        with pytest.raises(Transient, match="no connection") as caught:
            inputs.image(f"https://{host}:{secure.port}/a.png", field=FIELD)
        assert caught.value.counts is Counts.TRY
    assert len(secure.requests) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_taken(secure):
    with pytest.raises(Transient, match="certificate"):
        inputs_for(http=http_for(ADDRESS)).image(f"https://pictures.example:{secure.port}/a.png", field=FIELD)
    assert secure.requests == []


def test_a_server_without_tls_is_no_https():
    with web_server(answering(GOOD)) as server, pytest.raises(Transient):
        inputs_for(server, timeout_s=0.1).image(f"https://{server.authority}/a.png", field=FIELD)


# kept


def test_an_address_is_fetched_once_for_some_minutes_and_then_anew():
    clock = FakeClock()
    bodies = [GOOD, picture("blue")]
    with web_server(in_turn(*map(answering, bodies))) as server:
        inputs = inputs_for(server, monotonic=clock.monotonic)
        first = inputs.image(server.url(), field=FIELD)
        clock.advance(FRESH_S - 1)
        assert inputs.image(server.url(), field="payload.mask") is first
        assert len(server.requests) == 1
        clock.advance(1)
        assert inputs.image(server.url(), field=FIELD).data == bodies[1]
        assert len(server.requests) == 2


def test_of_many_that_want_the_same_at_once_one_fetches():
    started, go = threading.Barrier(8), threading.Event()
    seen: list[bytes] = []

    def reply(head: bytes) -> Iterator[bytes]:
        go.wait(10)
        yield from (piece for piece in answering(GOOD)(head) if piece)

    with web_server(reply) as server:
        inputs = inputs_for(server)

        def want() -> None:
            started.wait(10)
            seen.append(inputs.image(server.url(), field=FIELD).data)

        threads = [threading.Thread(target=want) for _ in range(7)]
        for thread in threads:
            thread.start()
        started.wait(10)
        go.set()
        for thread in threads:
            thread.join(20)
        assert seen == [GOOD] * 7
        assert len(server.requests) == 1


def test_what_failed_is_not_kept():
    busy, absent = answering(b"", status="503 Busy"), answering(b"", status="404 Not Found")
    with web_server(in_turn(busy, absent, answering(GOOD))) as server:
        inputs = inputs_for(server)
        with pytest.raises(Transient):
            inputs.image(server.url(), field=FIELD)
        with pytest.raises(Rejected):
            inputs.image(server.url(), field=FIELD)
        assert inputs.image(server.url(), field=FIELD).data == GOOD


# from S3


def test_a_picture_and_a_body_come_from_a_listed_bucket(cloud: Cloud):
    bucket, s3 = cloud.bucket(), cloud.clients.s3
    for key, body in (("a b/ä.png", GOOD), ("body.json", b'{"task_id": "a"}')):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    inputs = inputs_for(s3=s3, buckets=[bucket])
    assert inputs.image(f"s3://{bucket}/a b/ä.png", field=FIELD).data == GOOD
    assert inputs.read(f"s3://{bucket}/body.json", field="body", max_bytes=16) == b'{"task_id": "a"}'
    s3.delete_object(Bucket=bucket, Key="a b/ä.png")
    assert inputs.image(f"s3://{bucket}/a b/ä.png", field=FIELD).data == GOOD
    with pytest.raises(Rejected, match="16 bytes; 15 are the most") as caught:
        inputs.read(f"s3://{bucket}/body.json", field="body", max_bytes=15)
    assert caught.value.field == "body"
    with pytest.raises(Rejected, match="not an image"):
        inputs.image(f"s3://{bucket}/body.json", field=FIELD)


def test_what_is_not_in_the_bucket_fails_the_task(cloud: Cloud):
    bucket = cloud.bucket()
    inputs = inputs_for(s3=cloud.clients.s3, buckets=[bucket, "no-such-bucket-anywhere"])
    for address in (f"s3://{bucket}/absent.png", "s3://no-such-bucket-anywhere/a.png"):
        with pytest.raises(Rejected, match="not there") as caught:
            inputs.image(address, field=FIELD)
        assert caught.value.field == FIELD


def test_a_bucket_that_is_there_and_not_listed_is_not_read(moto: Cloud):
    listed, other = moto.bucket(), moto.bucket()
    moto.clients.s3.put_object(Bucket=other, Key="a.png", Body=GOOD)
    with pytest.raises(Rejected, match="allow_buckets"):
        inputs_for(s3=moto.clients.s3, buckets=[listed]).image(f"s3://{other}/a.png", field=FIELD)


def xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>so it is</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "counts"),
    [
        (403, DENIED_XML, Rejected, None),
        (403, xml("InvalidObjectState"), Rejected, None),
        (503, xml("SlowDown"), Transient, Counts.TRY),
        (500, xml("InternalError"), Unavailable, Counts.NOTHING),
        (403, xml("ExpiredToken"), AccessDenied, Counts.NOTHING),
        (403, xml("RequestTimeTooSkewed"), Unavailable, Counts.NOTHING),
    ],
)
def test_what_s3_says_no_with_decides_what_it_costs(status, body, kind, counts):
    with (
        endpoint(lambda *_: (status, body)) as url,
        one_attempt_client("s3", url) as s3,
        pytest.raises(kind) as caught,
    ):
        inputs_for(s3=s3, buckets=["pictures"]).image("s3://pictures/a.png", field=FIELD)
    assert getattr(caught.value, "counts", None) == counts


def test_an_s3_that_is_not_there_costs_the_task_nothing():
    with one_attempt_client("s3", NOWHERE) as s3, pytest.raises(Unavailable) as caught:
        inputs_for(s3=s3, buckets=["pictures"]).image("s3://pictures/a.png", field=FIELD)
    assert caught.value.counts is Counts.NOTHING


def test_an_object_that_is_too_large_is_not_read():
    def reply(_head: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nx-amz-request-id: 1\r\nContent-Length: 99999999\r\n\r\n"
        while True:
            yield b"a" * 65536

    with (
        web_server(reply) as server,
        one_attempt_client("s3", f"http://{server.authority}") as s3,
        pytest.raises(Rejected, match="99999999 bytes"),
    ):
        inputs_for(s3=s3, buckets=["pictures"]).image("s3://pictures/a.png", field=FIELD)


def test_an_object_is_read_within_the_time(moto: Cloud):
    bucket = moto.bucket()
    moto.clients.s3.put_object(Bucket=bucket, Key="a.png", Body=GOOD)
    looks = iter([0.0, 21.0])
    inputs = inputs_for(s3=moto.clients.s3, buckets=[bucket], monotonic=lambda: next(looks))
    with pytest.raises(Transient, match="within 20 s") as caught:
        inputs.read(f"s3://{bucket}/a.png", field=FIELD, max_bytes=MAX_BYTES)
    assert caught.value.counts is Counts.TRY


# what inputs stand on


def test_a_post_goes_to_what_was_judged_once_and_follows_nothing():
    with web_server(redirecting("http://169.254.169.254/")) as server:
        http = http_for(server.authority)
        status = http.post(
            server.url(), b'{"a": 1}', headers={"Content-Type": "application/json"}, deadline=Deadline(20)
        )
        assert status == 302
        with pytest.raises(Forbidden):
            http.post("http://169.254.169.254/", b"", headers={}, deadline=Deadline(20))
    (head,) = server.requests
    assert head.startswith(b"POST /a.png HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"\r\nContent-Length: 8\r\n" in head


def test_the_systems_names_are_looked_up(monkeypatch):
    assert ADDRESS in guarded_http.look_up("localhost", 80, 20.0)
    told = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def fail(*_: object, **__: object) -> None:
        raise told

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror):
        guarded_http.look_up("pictures.example", 80, 20.0)


def test_a_resolver_that_says_nothing_is_left_alone(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait(30) and [])
    try:
        with pytest.raises(NoAnswer, match="looked up"):
            GuardedHttp(Guard(), tls=PLAIN_TLS).fetch("http://pictures.example/", deadline=Deadline(0.05), max_bytes=1)
    finally:
        never.set()


def test_certificates_are_verified_unless_told_otherwise():
    context = GuardedHttp(Guard())._tls
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
