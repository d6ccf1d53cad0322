"""`GET /health` and `GET /metrics` over HTTP: what a person, a load balancer or a scraper asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

Report = Callable[[], tuple[bool, dict[str, Any]]]


class HealthServer(ThreadingHTTPServer):
    """Answers from two functions: `report` (is all well, and the particulars) and `metrics` (Prometheus text)."""

    daemon_threads = True

    def __init__(self, host: str, port: int, *, report: Report, metrics: Callable[[], bytes]) -> None:
        self.report = report
        self.metrics = metrics
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of a host name that the standard server does for a log we do not keep."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = 10

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/health":
                is_well, report = self.server.report()
                self._answer(200 if is_well else 503, "application/json", json.dumps(report, indent=2).encode() + b"\n")
            case "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, self.server.metrics())
            case _:
                self._answer(404, "application/json", b'{"error": "Not found"}\n')

    def _answer(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a scrape every few seconds is no event."""
