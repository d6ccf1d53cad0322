"""What really happens on the connection: an engine that refuses, dies, stalls, or answers before its body."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from scheduler.domain.errors import EngineDown, EngineLost
from scheduler.sd_api_client import AnswerTimedOut, SdApiClient

PATH = "/sdapi/v1/txt2img"
BODY = b'{"prompt":"a cat"}'


class Engine:
    """A listening socket; each connection in turn is given to the next of `acts`, the last for ever."""

    def __init__(self, *acts: Callable[["Engine", socket.socket], None]) -> None:
        self.acts = list(acts)
        self.requests: list[bytes] = []
        self.finish = threading.Event()
        self.connection: socket.socket | None = None
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
            act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
            self.connection = connection
            with closing(connection), suppress(OSError):  # the client, or the end of the test, may hang up
                act(self, connection)

    def take(self, connection: socket.socket) -> bytes:
        """Read one request whole."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += (piece := connection.recv(65536))
            if not piece:
                return data
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]


@contextmanager
def engine(*acts) -> Iterator[Engine]:
    it = Engine(*acts)
    try:
        yield it
    finally:
        it.finish.set()
        it.listener.shutdown(socket.SHUT_RDWR)
        it.listener.close()
        if it.connection is not None:
            with suppress(OSError):
                it.connection.shutdown(socket.SHUT_RDWR)
        it.thread.join(10)


def answer(body: bytes, *, head: bytes = b"", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % size + body


def say(data: bytes, *, reset: bool = False):
    def act(it: Engine, connection: socket.socket) -> None:
        it.take(connection)
        connection.sendall(data)
        if reset:
            # Linger 0: closing sends RST, as a killed process with unread data does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return act


def hold(it: Engine, connection: socket.socket) -> None:
    it.take(connection)
    it.finish.wait(30)


def test_refused_is_an_engine_down():
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    client = SdApiClient(f"http://127.0.0.1:{port}")
    for call in (client.options, client.interrupt, lambda: client.generate(PATH, BODY, 5)):
        with pytest.raises(EngineDown):
            call()


@pytest.mark.parametrize("reset", [False, True])
def test_closed_without_a_byte_is_a_lost_engine_and_nothing_is_sent_again(reset):
    with engine(say(b"", reset=reset)) as it:
        with pytest.raises(EngineLost):
            SdApiClient(it.url).generate(PATH, BODY, 5)
        assert len(it.requests) == 1


@pytest.mark.parametrize("head", [b"HT", b"HTTP/1.1 2", b"\0\0\0\n"])
def test_half_a_head_is_a_lost_engine(head):
    with engine(say(head)) as it, pytest.raises(EngineLost):
        SdApiClient(it.url).generate(PATH, BODY, 5).read(100)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("body", [b"", b'{"images":["iVBOR'])
def test_a_body_that_breaks_off_is_a_lost_engine(body, reset):
    with engine(say(answer(body, length=1000), reset=reset)) as it:
        with pytest.raises(EngineLost):
            SdApiClient(it.url).generate(PATH, BODY, 5).read(10_000)
        assert len(it.requests) == 1


def test_a_body_that_stalls_is_a_lost_engine(monkeypatch):
    monkeypatch.setattr("scheduler.engine_http.BODY_STALL_S", 0.2)
    ended = threading.Event()

    def stall(it, connection):
        it.take(connection)
        connection.sendall(answer(b"begin", length=1000))
        it.finish.wait(20)
        ended.set()

    with engine(stall) as it:
        response = SdApiClient(it.url).generate(PATH, BODY, 600)
        with pytest.raises(EngineLost):
            response.read(10_000)
        assert not ended.is_set()  # we gave up, not the engine


def test_no_answer_in_time_is_told_apart():
    with engine(hold) as it:
        with pytest.raises(AnswerTimedOut):
            SdApiClient(it.url).generate(PATH, BODY, 0.3)
        assert len(it.requests) == 1


def test_an_engine_that_takes_no_more_of_the_request_never_had_it():
    def deaf(it, _connection):
        it.finish.wait(30)

    with engine(deaf) as it:
        client = SdApiClient(it.url, connect_timeout_s=0.3)
        with pytest.raises(EngineDown, match="took no more"):
            client.generate(PATH, b"x" * (64 << 20), 5)


def test_the_answer_is_there_when_its_headers_are():
    def slowly(it, connection):
        it.take(connection)
        connection.sendall(answer(b"", length=4))
        it.finish.wait(30)
        connection.sendall(b"body")

    with engine(slowly) as it:
        response = SdApiClient(it.url).generate(PATH, BODY, 30)
        assert response.status == 200
        it.finish.set()
        assert response.read(100) == b"body"


def test_on_sent_is_called_when_the_engine_has_the_request():
    told = threading.Event()

    def wait_for_it(it, connection):
        it.take(connection)
        assert told.wait(10)
        connection.sendall(answer(b"ok"))

    with engine(wait_for_it) as it:
        response = SdApiClient(it.url).generate(PATH, BODY, 30, on_sent=told.set)
        assert response.read(10) == b"ok"
        assert it.requests[0].endswith(BODY)
        assert b"chunked" not in it.requests[0].lower()


def test_each_generating_request_has_its_own_connection():
    connections = []

    def keep_alive(it, connection):
        connections.append(connection)
        while it.take(connection):
            connection.sendall(answer(b"ok"))

    with engine(keep_alive) as it:
        client = SdApiClient(it.url)
        for _ in range(3):
            assert client.generate(PATH, BODY, 5).read(10) == b"ok"
        assert len(connections) == 3


def test_reads_share_a_connection_and_survive_its_end():
    connections = []

    def twice_then_gone(it, connection):
        connections.append(connection)
        for _ in range(2):
            it.take(connection)
            connection.sendall(answer(b"{}"))

    with engine(twice_then_gone) as it:
        client = SdApiClient(it.url)
        for _ in range(5):
            assert client.options() == {}
        assert len(connections) == 3


def test_bodies_without_a_length_are_bounded_too():
    chunk = b"5\r\nhello\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with engine(say(chunked + chunk * 3 + b"0\r\n\r\n")) as it:
        client = SdApiClient(it.url)
        assert client.generate(PATH, BODY, 5).read(100) == b"hello" * 3
        assert client.generate(PATH, BODY, 5).read(14) is None


def test_an_answer_can_be_thrown_away_unread():
    with engine(say(answer(b"x" * 1000))) as it:
        client = SdApiClient(it.url)
        client.generate(PATH, BODY, 5).close()
        assert client.generate(PATH, BODY, 5).read(10_000) == b"x" * 1000
