"""Stands before an emulator, a port for each service, and makes each misbehave on demand, as networks and AWS do."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SERVICES = ("sqs", "dynamodb", "s3")


class Mood(StrEnum):
    """How a service answers."""

    WELL = "well"
    REFUSING = "refusing"
    """No connection is taken, and those that are open end."""
    HANGING = "hanging"
    """Requests are taken and never answered; nothing is done."""
    BROKEN = "broken"
    """500 to everything."""
    THROTTLED = "throttled"
    """Each service's own way to say: slower."""
    FORGETFUL = "forgetful"
    """What is asked for is done, and the answer is lost on its way back."""


THROTTLES = {
    "sqs": (403, "RequestThrottled"),
    "dynamodb": (400, "ProvisionedThroughputExceededException"),
    "s3": (503, "SlowDown"),
}


class FlakyService:
    """One service behind one port of its own; the port stays the same however often it is closed."""

    def __init__(self, service: str, upstream: str) -> None:
        self.service = service
        self.upstream = urlsplit(upstream).netloc
        self._changed = threading.Condition()
        self._mood = Mood.WELL
        self.struck = 0
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None
        self._listen(0)
        assert self._server is not None
        self.port = self._server.server_port
        # Bound and never listened on: it keeps the port from others while connections are refused.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._keeper.bind(("127.0.0.1", self.port))

    @property
    def url(self) -> str:
        """Where clients are to go."""
        return f"http://127.0.0.1:{self.port}"

    def met(self) -> Mood:
        """Return how it answers now; `struck` counts the requests since the mood changed."""
        with self._changed:
            self.struck += 1
            return self._mood

    def become(self, mood: Mood) -> None:
        """Answer like this from now on; what hangs is let go unanswered."""
        with self._changed:
            before, self._mood, self.struck = self._mood, mood, 0
            self._changed.notify_all()
        if mood is Mood.REFUSING:
            self.close()
        elif before is Mood.REFUSING:
            self._listen(self.port)

    def close(self) -> None:
        """Take no connection and end those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        with self._changed:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def give_up_port(self) -> None:
        """Let others have the port."""
        self._keeper.close()

    def hang(self) -> None:
        """Return when the mood is another."""
        with self._changed:
            self._changed.wait_for(lambda: self._mood is not Mood.HANGING)

    @contextlib.contextmanager
    def counted(self, connection: socket.socket) -> Iterator[None]:
        """Know `connection` for as long as it is served."""
        with self._changed:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._changed:
                self._open.discard(connection)

    def _listen(self, port: int) -> None:
        self._server = _Server(port, self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()


class FlakyAws:
    """All three services; `environ` sends a process to them."""

    def __init__(self, upstream: str) -> None:
        self.services = {name: FlakyService(name, upstream) for name in SERVICES}

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the services' addresses, which go before that of all of AWS."""
        return {f"AWS_ENDPOINT_URL_{name.upper()}": service.url for name, service in self.services.items()}

    def become(self, mood: Mood, *names: str) -> None:
        """Put services into a mood, all of them when none is named."""
        for name in names or SERVICES:
            self.services[name].become(mood)

    def close(self) -> None:
        """End everything, what hangs included."""
        for service in self.services.values():
            service.become(Mood.REFUSING)
            service.give_up_port()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = True
    request_queue_size = 256

    def __init__(self, port: int, service: FlakyService) -> None:
        self.service = service
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that were killed, and connections that we ended."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def handle(self) -> None:
        with self.server.service.counted(self.connection):
            super().handle()

    def _answer(self) -> None:
        service = self.server.service
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mood = service.met()
        if mood is Mood.HANGING:
            service.hang()
        match mood:
            case Mood.WELL:
                self._send(*self._forward(service.upstream, body))
            case Mood.FORGETFUL:
                self._forward(service.upstream, body)
                self.close_connection = True
            case Mood.BROKEN:
                self._refuse(service.service, 500, "InternalError")
            case Mood.THROTTLED:
                self._refuse(service.service, *THROTTLES[service.service])
            case _:
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - named by http.server

    def _forward(self, upstream: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body, headers | {"Connection": "close"})
            response = connection.getresponse()
            data = response.read()
            dropped = {"connection", "transfer-encoding", "keep-alive"} | (
                {"content-length"} if self.command != "HEAD" else set()
            )
            return response.status, [(n, v) for n, v in response.getheaders() if n.lower() not in dropped], data
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, service: str, status: int, code: str) -> None:
        if service == "s3":
            text, kind = f"<Error><Code>{code}</Code><Message>so ordered</Message></Error>", "application/xml"
        else:
            text, kind = (
                json.dumps({"__type": f"com.amazonaws#{code}", "message": "so ordered"}),
                "application/x-amz-json-1.0",
            )
        self._send(status, [("Content-Type", kind)], text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
