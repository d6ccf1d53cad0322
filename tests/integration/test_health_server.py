"""The health server over real sockets on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scheduler.observe.health import HealthServer
from scheduler.observe.metrics import Metrics


@contextmanager
def serving(
    report: Callable[[], tuple[bool, dict[str, Any]]] = lambda: (True, {"status": "healthy"}),
    metrics: Callable[[], bytes] = lambda: b"",
    port: int = 0,
) -> Iterator[int]:
    server = HealthServer("127.0.0.1", port, report=report, metrics=metrics)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def ask(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("is_well", "status"), [(True, 200), (False, 503)])
def test_health_is_200_or_503_with_the_particulars(is_well, status):
    particulars = {"status": "x", "held": [{"task_id": "t1", "why": "狐"}]}
    with serving(lambda: (is_well, particulars)) as port:
        found, media_type, body = ask(port, "/health")
    assert (found, media_type) == (status, "application/json")
    assert json.loads(body) == particulars


def test_health_is_asked_for_anew_each_time():
    answers = [(False, {"n": 1}), (True, {"n": 2})]
    with serving(lambda: answers.pop(0)) as port:
        assert [ask(port, "/health")[0] for _ in range(2)] == [503, 200]


def test_metrics_are_given_as_prometheus_reads_them():
    metrics = Metrics()
    metrics.receives.inc()
    with serving(metrics=metrics.text) as port:
        status, media_type, body = ask(port, "/metrics")
    assert status == 200
    assert media_type.startswith("text/plain; version=")
    assert b"\nsd_scheduler_receives_total 1.0\n" in body


@pytest.mark.parametrize("path", ["/", "/healthz", "/health/x", "/metrics/", "/../health"])
def test_other_paths_are_not_found(path):
    with serving() as port:
        status, _, body = ask(port, path)
    assert (status, json.loads(body)) == (404, {"error": "Not found"})


def test_a_query_is_passed_over():
    with serving() as port:
        assert ask(port, "/health?verbose=1")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "BREW"])
def test_other_methods_are_refused(method):
    with serving() as port:
        assert ask(port, "/health", method)[0] == 501


def test_a_client_that_says_nothing_keeps_nobody_waiting():
    with serving() as port, socket.create_connection(("127.0.0.1", port), timeout=10):
        assert ask(port, "/health")[0] == 200


def test_nonsense_on_the_line_is_answered_or_dropped_and_harms_nothing():
    with serving() as port:
        for noise in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GET\r\n\r\n",
            b"\0" * 100 + b"\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(noise)
                connection.recv(1000)
        assert ask(port, "/health")[0] == 200


def test_many_may_ask_at_once():
    all_there = threading.Barrier(8)

    def report() -> tuple[bool, dict[str, Any]]:
        all_there.wait(10)
        return True, {}

    statuses: list[int] = []
    with serving(report) as port:
        threads = [threading.Thread(target=lambda: statuses.append(ask(port, "/health")[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert statuses == [200] * 8


def test_a_scheduler_started_again_gets_the_same_port_at_once():
    with serving() as port:
        assert ask(port, "/health")[0] == 200  # the server closes this connection first, which holds the port a while
    with serving(port=port) as again:
        assert again == port
        assert ask(port, "/health")[0] == 200


def test_a_port_that_is_taken_is_an_error_and_not_shared():
    with serving() as port, pytest.raises(OSError, match="Address already in use"):
        HealthServer("127.0.0.1", port, report=lambda: (True, {}), metrics=lambda: b"")
