"""A server on loopback that sends just the bytes that a test tells it to, right HTTP or not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

Reply = Callable[[bytes], Iterable[bytes | None]]
"""The head of a request → the pieces to send, without end if need be; None: say nothing more until the client goes."""
ADDRESS = "127.0.0.1"


@dataclass(slots=True)
class WebServer:
    """Where it listens, and the heads of the requests that came."""

    port: int
    requests: list[bytes] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"{ADDRESS}:{self.port}"

    def url(self, path: str = "/a.png") -> str:
        return f"http://{self.authority}{path}"


@contextlib.contextmanager
def web_server(reply: Reply, *, tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Serve each connection in a thread of its own, one request each."""
    listening = socket.create_server((ADDRESS, 0), backlog=64)
    server = WebServer(listening.getsockname()[1])
    open_now: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            open_now.append(connection)
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            plain.settimeout(30)
            with tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (piece := connection.recv(65536)):
                        return
                    head += piece
                server.requests.append(head)
                for piece in reply(head):
                    if piece is None:
                        connection.recv(1)
                    else:
                        connection.sendall(piece)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield server
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        accepting.join(5)


def answering(body: bytes, *headers: str, status: str = "200 OK") -> Reply:
    """Answer every request alike, with a right length unless `headers` tell another."""
    told = [f"HTTP/1.1 {status}", *headers]
    if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
        told.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*told, "", ""]).encode("latin-1")
    return lambda _head: [head, body]


def redirecting(location: str, status: str = "302 Found") -> Reply:
    """Send every request to `location`."""
    return answering(b"gone", f"Location: {location}", status=status)


def in_turn(*replies: Reply) -> Reply:
    """Answer the first request with the first of `replies`, and so on."""
    left = iter(replies)

    def reply(head: bytes) -> Iterable[bytes | None]:
        return next(left)(head)

    return reply
