"""HTTP/1.1 over the application, with the real server's manners on the wire: kept connections, drained at SIGTERM."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scheduler.local.standin.application import Application, Reply, Request

KEEP_ALIVE_S = 30.0


class StandinServer(ThreadingHTTPServer):
    """Listens from construction; a thread for each connection."""

    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        super().__init__(address, _Connection)
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
            self._send(self.server.application.handle(Request(self.command, self.path, headers, body)))
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

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "sd-webui-standin"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the overridden method's
        """Keep no access log."""
