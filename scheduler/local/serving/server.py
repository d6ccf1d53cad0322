"""HTTP/1.1 over an application, with a real server's manners on the wire: kept connections, drained at SIGTERM."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Protocol

KEEP_ALIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read whole; header names are in small letters."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. With `upgrade` the connection is handed to it once the head is sent, and closed when it returns.

    It reads what the client sends from the first argument and sends through the second.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    upgrade: Callable[[BufferedIOBase, socket.socket], None] | None = None


class Application(Protocol):
    """What answers."""

    name: str
    """What the Server header says."""

    def handle(self, request: Request) -> Reply:
        """Answer one request, however long it takes; called from any thread."""


class StandinServer(ThreadingHTTPServer):
    """Listens from construction, unless told to leave that to `server_activate`; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], application: Application, *, listens: bool = True) -> None:
        super().__init__(address, _Connection, bind_and_activate=listens)
        if not listens:
            self.server_bind()  # the port is ours, and refuses
        self.application = application
        self._active = 0
        self._quiet = threading.Condition()
        self._draining = False

    @property
    def draining(self) -> bool:
        """Whether no further requests are taken."""
        return self._draining

    def entered(self) -> bool:
        """Count a request in; False when it came too late."""
        with self._quiet:
            if not self._draining:
                self._active += 1
            return not self._draining

    def left(self) -> None:
        """Count a request out: its answer is sent, or its client gone."""
        with self._quiet:
            self._active -= 1
            self._quiet.notify_all()

    def drain(self) -> None:
        """Refuse new connections at once; return when all requests in hand, running and queued, are answered."""
        with self._quiet:
            self._draining = True
        self.shutdown()
        self.socket.close()
        with self._quiet:
            self._quiet.wait_for(lambda: self._active == 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hung up; report anything else."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """One connection; a request's body is read whole before anything is done with it."""

    server: StandinServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = KEEP_ALIVE_S
    wbufsize = -1  # head and body leave in one piece

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # the base class looks for a method by the verb's name
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        body = self._body()
        if body is None or not self.server.entered():
            self.close_connection = True
            return
        try:
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = self.server.application.handle(Request(self.command, self.path, headers, body))
            if reply.upgrade is None:
                self._send(reply)
            else:
                self._hand_over(reply, reply.upgrade)
        finally:
            self.server.left()

    def _body(self) -> bytes | None:
        """Return the whole body, or None if the client left before its end."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes | None:
        parts: list[bytes] = []
        while size := int(self.rfile.readline().partition(b";")[0].strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            if len(parts[-1]) != size or self.rfile.readline().strip():
                return None
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        if self.server.draining:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()

    def _hand_over(self, reply: Reply, upgrade: Callable[[BufferedIOBase, socket.socket], None]) -> None:
        self.close_connection = True
        self.connection.settimeout(None)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        upgrade(self.rfile, self.connection)

    def version_string(self) -> str:
        """Return what the Server header says."""
        return self.server.application.name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the overridden method's
        """Keep no access log."""
