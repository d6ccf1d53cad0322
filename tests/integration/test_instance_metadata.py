"""Instance metadata over real sockets on loopback: tokens, silence, strangers and rubbish."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from fakes import FakeClock

from scheduler.aws.instance_metadata import (
    DISABLED_VARIABLE,
    ENDPOINT,
    ENDPOINT_VARIABLE,
    MAX_BYTES,
    TOKEN_TTL_S,
    TOKENS,
    Identity,
    InstanceMetadata,
    NotAnInstance,
)
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.drain.notices import INSTANCE_ACTION
from scheduler.local.metadata import LocalInstance, LocalMetadata

TOKEN = b"AQAEAtoken=="


def answer(body: bytes = b"", status: bytes = b"200 OK", *, promised: int | None = None, more: bytes = b"") -> bytes:
    length = len(body) if promised is None else promised
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s" % (status, length, more, body)


class Rubbish:
    """A server that answers each GET with the next of `answers` (raw bytes,
    the last for ever), each PUT with `token`.
    """

    def __init__(self, *answers: bytes, token: bytes | None = None) -> None:
        self.answers = list(answers)
        self.token = answer(TOKEN) if token is None else token
        self.gets = 0
        self.puts = 0
        self.heads: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += (piece := connection.recv(65536))
                    if not piece:
                        break
                self.heads.append(head)
                if head.startswith(b"PUT"):
                    self.puts += 1
                    connection.sendall(self.token)
                elif head:
                    self.gets += 1
                    connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


@contextlib.contextmanager
def rubbish(*answers: bytes, token: bytes | None = None) -> Iterator[Rubbish]:
    server = Rubbish(*answers, token=token)
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        server.thread.join(10)


@pytest.fixture
def local(clock: FakeClock) -> Iterator[LocalMetadata]:
    with LocalMetadata(clock) as server:
        yield server


@pytest.fixture
def instance(local: LocalMetadata) -> LocalInstance:
    return local.add("i-0abc", instance_type="g5.xlarge", zone="eu-west-1b", life_cycle="spot")


def client(endpoint: str, clock: FakeClock, *, connect_s: float = 5, answer_s: float = 5) -> InstanceMetadata:
    return InstanceMetadata(endpoint, clock=clock, connect_timeout_s=connect_s, answer_timeout_s=answer_s)


# what it tells


def test_an_instance_knows_who_it_is(instance, clock):
    identity = client(instance.endpoint, clock).identity()
    assert identity == Identity(instance_id="i-0abc", instance_type="g5.xlarge", zone="eu-west-1b", life_cycle="spot")
    assert identity.is_spot


def test_what_is_not_told_is_empty(instance, clock):
    instance.document("instance-life-cycle", None)
    identity = client(instance.endpoint, clock).identity()
    assert (identity.life_cycle, identity.is_spot) == ("", False)
    instance.document("instance-id", None)
    with pytest.raises(Unavailable, match="instance-id"):
        client(instance.endpoint, clock).identity()


def test_a_document_is_none_until_it_is_there(instance, clock):
    metadata = client(instance.endpoint, clock)
    assert metadata.get(INSTANCE_ACTION) is None
    instance.interrupt(120)
    assert '"action": "terminate"' in metadata.get(INSTANCE_ACTION)


# tokens


def test_a_token_is_replaced_before_it_ends(instance, clock):
    metadata = client(instance.endpoint, clock)
    for _ in range(12):
        assert metadata.get("instance-id") == "i-0abc"
        clock.advance(TOKEN_TTL_S / 4)
    clock.advance(TOKEN_TTL_S - 1)
    assert metadata.get("instance-id") == "i-0abc"
    assert instance.refusals == 0


def test_a_token_that_is_not_taken_any_more_is_replaced_within_the_call(instance, clock):
    metadata = client(instance.endpoint, clock)
    metadata.get("instance-id")
    instance.forget_tokens()
    assert metadata.get("instance-id", tries=1) == "i-0abc"
    assert metadata.get("instance-id", tries=1) == "i-0abc"
    assert instance.refusals == 1


def test_a_host_whose_clock_stood_still_gets_a_new_token(local, instance):
    metadata = client(instance.endpoint, FakeClock())
    metadata.get("instance-id")
    local_clock = instance._clock
    local_clock.advance(TOKEN_TTL_S + 1)
    assert metadata.get("instance-id", tries=1) == "i-0abc"


def test_tokens_that_are_never_taken_end_in_an_error(clock):
    with rubbish(answer(status=b"401 Unauthorized")) as server:
        with pytest.raises(Unavailable, match="401"):
            client(server.url, clock).get("instance-id")
        assert (server.puts, server.gets) == (TOKENS, TOKENS)


def test_many_threads_may_ask_while_tokens_end(instance, clock):
    metadata = client(instance.endpoint, clock)
    said: list[str | None] = []

    def ask() -> None:
        for _ in range(10):
            said.append(metadata.get("instance-id"))
            clock.advance(TOKEN_TTL_S / 10)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said == ["i-0abc"] * 40


# where there is none


def test_no_connection_means_no_instance_and_is_no_error(clock):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        metadata = client(f"http://127.0.0.1:{unused.getsockname()[1]}", clock)
        assert metadata.identity() is None
        with pytest.raises(NotAnInstance):
            metadata.get("instance-id")


def test_no_answer_to_a_connection_means_no_instance_either(clock):
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # what it would have taken in, so that it is silent to the next
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        assert client(f"http://127.0.0.1:{deaf.getsockname()[1]}", clock, connect_s=0.3).identity() is None


@pytest.mark.parametrize(
    "token",
    [
        answer(b"no such page", b"404 Not Found"),
        answer(b"", b"405 Method Not Allowed"),
        answer(b"<html>Welcome to the hotel</html>"),
        answer(b""),
        answer(b"a\r\nHeader: injected"),
        answer(b"x" * 5000),
    ],
    ids=["404", "405", "a portal", "empty", "two lines", "long"],
)
def test_a_stranger_at_the_address_means_no_instance(clock, token):
    with rubbish(answer(b"i-0abc"), token=token) as server:
        assert client(server.url, clock).identity() is None


# where it does not answer well


def test_the_hop_limit_is_named_with_what_to_do(instance, clock):
    instance.is_too_far = True
    with pytest.raises(Unavailable, match=r"hop limit is 1.*--http-put-response-hop-limit 2"):
        client(instance.endpoint, clock, answer_s=0.2).identity()


def test_metadata_that_is_turned_off_is_named_with_what_to_do(clock):
    with rubbish(answer(), token=answer(status=b"403 Forbidden")) as server:
        with pytest.raises(Unavailable, match=r"turned off.*--http-endpoint enabled"):
            client(server.url, clock).identity()
        assert server.puts == 1


PASSING = {
    "503": answer(status=b"503 Slow Down"),
    "429": answer(status=b"429 Too Many Requests"),
    "closed": b"",
    "no HTTP": b"\x16\x03\x01rubbish\r\n\r\n",
    "broken off": answer(b"i-0", promised=6),
}


@pytest.mark.parametrize("broken", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_three_times(clock, broken):
    with rubbish(broken, broken, answer(b"i-0abc")) as server:
        assert client(server.url, clock).get("instance-id") == "i-0abc"
    with rubbish(broken) as server:
        with pytest.raises(Unavailable) as raised:
            client(server.url, clock).get("instance-id")
        assert server.gets == 3
        assert TOKEN.decode() not in str(raised.value)
    with rubbish(broken, answer(b"i-0abc")) as server:
        with pytest.raises(Unavailable):
            client(server.url, clock).get("instance-id", tries=1)
        assert server.gets == 1


@pytest.mark.parametrize(
    "bad",
    [
        answer("héllo".encode()),
        answer(b"i-0\x00abc"),
        answer(b"x" * (MAX_BYTES + 1)),
        answer(b"", b"302 Found", more=b"Location: http://127.0.0.1:1/latest/meta-data/instance-id\r\n"),
        answer(b"", b"204 No Content"),
        answer(b"", b"400 Bad Request"),
        answer(b"", b"403 Forbidden"),
    ],
    ids=["not ASCII", "NUL", "large", "elsewhere", "204", "400", "403"],
)
def test_what_will_not_pass_is_refused_at_once(clock, bad):
    with rubbish(bad) as server:
        with pytest.raises(Unavailable):
            client(server.url, clock).get("instance-id")
        assert server.gets == 1


def test_the_largest_document_is_read(clock):
    with rubbish(answer(b"x" * MAX_BYTES)) as server:
        assert client(server.url, clock).get("user-data") == "x" * MAX_BYTES


def test_a_server_that_stops_in_the_middle_is_given_up(clock, instance):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        metadata = client(f"http://127.0.0.1:{listener.getsockname()[1]}", clock, answer_s=0.2)
        with pytest.raises(Unavailable):
            metadata.get("instance-id", tries=1)


# no proxy


def test_no_proxy_is_ever_asked(instance, clock, monkeypatch):
    with rubbish(answer(b"proxied"), token=answer(b"proxied")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert client(instance.endpoint, clock).identity().instance_id == "i-0abc"
        assert proxy.heads == []


# where it is looked for; nothing is sent


def test_the_endpoint_is_ec2s_unless_a_variable_says_otherwise(clock):
    assert InstanceMetadata.from_environ({}, clock=clock).endpoint == ENDPOINT
    elsewhere = InstanceMetadata.from_environ({ENDPOINT_VARIABLE: "http://127.0.0.1:1338/i-1/"}, clock=clock)
    assert elsewhere.endpoint == "http://127.0.0.1:1338/i-1"


@pytest.mark.parametrize(
    ("said", "is_off"), [("true", True), ("TRUE", True), ("false", False), ("", False), ("1", False)]
)
def test_a_variable_turns_it_off_as_it_does_for_boto3(clock, said, is_off):
    assert (InstanceMetadata.from_environ({DISABLED_VARIABLE: said}, clock=clock) is None) is is_off


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1", "https://127.0.0.1", "http://", "http://h:port", "http://[::1", "http://h?x", "http://u@h"],
)
def test_an_endpoint_that_is_no_address_is_named(clock, endpoint):
    with pytest.raises(ConfigError, match=ENDPOINT_VARIABLE):
        InstanceMetadata.from_environ({ENDPOINT_VARIABLE: endpoint}, clock=clock)
