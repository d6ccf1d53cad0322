"""The fleet of local mode: an HTTP service on loopback over the worker processes of this machine.

``python -m scheduler.local.fleet_service --folder F [--boot-seconds S] [--env NAME=VALUE]... -- COMMAND...`` prints one
line, ``listening on http://127.0.0.1:PORT``, and serves until standard input ends or SIGTERM; then it stops the
workers. In COMMAND and in values ``{id}`` stands for the worker's instance id. `GET /fleet`, `PUT /target` and
`POST /end` are what `autoscale.fleets.local` asks. Like a Spot Fleet it replaces what ends while the target stays, and
keeps an excess. Each worker has instance metadata of its own, and `POST /interrupt` takes one away as EC2 takes a Spot
instance.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from scheduler.autoscale.fleets.local import view_to_json
from scheduler.domain.clock import SystemClock
from scheduler.local.fleet_workers import Recipe, Workers
from scheduler.local.metadata import LocalMetadata
from scheduler.local.serving.announcing import announce

TICK_S = 0.1


class FleetServer(ThreadingHTTPServer):
    """Answers for `workers` on loopback; it listens from construction."""

    daemon_threads = True

    def __init__(self, workers: Workers, metadata: LocalMetadata) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.workers = workers
        self.metadata = metadata

    def server_bind(self) -> None:
        """Bind without the look-up of a host name that the standard server does for a log we do not keep."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FleetServer
    timeout = 10

    def do_GET(self) -> None:
        if self.path == "/fleet":
            self._answer(200, view_to_json(self.server.workers.view()))
        else:
            self._answer(404, {"error": "not found"})

    def do_PUT(self) -> None:
        self._change({"/target": self._set_target})

    def do_POST(self) -> None:
        self._change({"/end": self._end, "/interrupt": self._interrupt})

    def _set_target(self, order: Mapping[str, Any]) -> None:
        capacity = order["capacity"]
        if type(capacity) is not int or capacity < 0:
            raise ValueError("capacity must be a whole number from 0")
        self.server.workers.set_target(capacity)

    def _end(self, order: Mapping[str, Any]) -> None:
        self.server.workers.end([str(each) for each in order["instance_ids"]], now=time.monotonic())

    def _interrupt(self, order: Mapping[str, Any]) -> None:
        """Announce to a worker that it is taken away, and take it away then."""
        instance_id, in_s = str(order["instance_id"]), float(order["in_s"])
        self.server.workers.reclaim(instance_id, at=time.monotonic() + in_s)
        self.server.metadata.add(instance_id).interrupt(in_s)

    def _change(self, ways: Mapping[str, Callable[[Mapping[str, Any]], None]]) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        do = ways.get(self.path)
        if do is None:
            self._answer(404, {"error": "not found"})
            return
        try:
            do(json.loads(body))
        except (KeyError, TypeError, ValueError) as error:
            self._answer(400, {"error": repr(error)})
        else:
            self._answer(200, {})

    def _answer(self, status: int, answer: Mapping[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends or SIGTERM; the workers are started by this, the main thread."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="a folder for each worker is made below it")
    parser.add_argument("--boot-seconds", type=float, default=0.0, help="from launch to start (default: %(default)s)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for the workers; repeatable")
    parser.add_argument("command", nargs="+", help="starts one worker")
    asked = parser.parse_args()
    with LocalMetadata(SystemClock()) as metadata:
        environ = dict(each.split("=", 1) for each in asked.env) | {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{metadata.url}/{{id}}",
        }
        recipe = Recipe(command=asked.command, folder=asked.folder.resolve(), environ=environ)
        workers = Workers(recipe, boot_s=asked.boot_seconds, on_launch=metadata.add)
        _serve(workers, FleetServer(workers, metadata))


def _serve(workers: Workers, server: FleetServer) -> None:
    stop: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.put("signal"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    announce(server.address)
    while True:
        try:
            stop.get(timeout=TICK_S)
        except queue.Empty:
            workers.tick(now=time.monotonic())
        else:
            break
    workers.close()


def _stop_with_parent(stop: queue.SimpleQueue[str]) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # not by sys.stdin, whose lock the interpreter's end would wait for
        pass
    stop.put("parent")


if __name__ == "__main__":
    main()
