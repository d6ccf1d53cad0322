"""Webhooks against a real HTTP server on loopback, which the allow-list opens."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog

from scheduler.domain.clock import SystemClock
from scheduler.domain.destinations import Guard
from scheduler.guarded_http import GuardedHttp
from scheduler.notify import webhook
from scheduler.notify.webhook import WebhookSender
from scheduler.observe.metrics import Metrics
from scheduler.wire.webhook import headers, key_of

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "task.completed"}'


class Receiver(ThreadingHTTPServer):
    """Answers with the next of `statuses`, the last one from then on; keeps what came."""

    daemon_threads = True

    def __init__(self, statuses: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = statuses
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.silent = threading.Event()
        self.silent.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/done?token=7"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append(({name.lower(): value for name, value in self.headers.items()}, sent))
        self.server.silent.wait(30)
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("Location", "http://169.254.169.254/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def receiver(*statuses: int) -> Iterator[Receiver]:
    with Receiver(list(statuses)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.silent.set()
            server.shutdown()
            thread.join(5)


class Sending:
    """A sender with its threads, and what it counted and told."""

    def __init__(
        self, *, allow: tuple[str, ...] = ("127.0.0.1",), http: Any = None, threads: int = 1, **options: Any
    ) -> None:
        self.metrics = Metrics()
        options = {"pauses_s": (0.01,) * 3, "timeout_s": 5.0, "key": key_of(SECRET)} | options
        self.sender = WebhookSender(
            http or GuardedHttp(Guard(allow)), clock=SystemClock(), metrics=self.metrics, **options
        )
        self._threads = [threading.Thread(target=self.sender.run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def send(self, url: str, body: bytes = BODY) -> None:
        self.sender.send(url, body, named="msg_1", task_id="t1")

    def counted(self, outcome: str) -> float:
        labels = {"kind": "webhook", "outcome": outcome}
        return self.metrics.registry.get_sample_value("sd_scheduler_announcements_total", labels) or 0.0

    def close(self, within_s: float = 0.0) -> None:
        self.sender.close(within_s)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_it_arrives_whole_and_signed():
    sending = Sending()
    with receiver(204) as server:
        sending.send(server.url)
        until(lambda: sending.counted("sent") == 1)
    [(told, sent)] = server.came
    assert sent == BODY
    assert told["content-type"] == "application/json"
    expected = headers(key_of(SECRET), named="msg_1", at_s=int(told["webhook-timestamp"]), body=sent)
    assert {name: told[name] for name in expected if name != "Content-Type"} == {
        name: value for name, value in expected.items() if name != "Content-Type"
    }
    sending.close()


def test_what_fails_is_tried_again_under_the_same_name_and_a_redirect_is_not_followed():
    sending = Sending()
    with receiver(500, 302, 404, 200) as server:
        sending.send(server.url)
        until(lambda: sending.counted("sent") == 1)
    assert {told["webhook-id"] for told, _ in server.came} == {"msg_1"}
    assert len(server.came) == 4
    sending.close()


def test_after_the_last_try_it_is_told_as_lost(log):
    sending = Sending()
    with receiver(503) as server:
        sending.send(server.url)
        until(lambda: sending.counted("lost") == 1)
    assert len(server.came) == 4
    [line] = [line for line in log if line["event"] == "webhook_lost"]
    assert (line["task_id"], line["tries"]) == ("t1", 4)
    assert "503" in line["error"]
    assert "token" not in line["error"]
    sending.close()


def test_one_that_is_gone_is_left_alone():
    sending = Sending()
    with receiver(410) as server:
        sending.send(server.url)
        until(lambda: sending.counted("refused") == 1)
        sending.close(1.0)
    assert len(server.came) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://[::ffff:10.0.0.1]/",
        "http://printer.local/",
        "http://rebound.example.com/",
        "ftp://hooks.example.com/",
    ],
)
def test_a_hostile_address_is_refused_before_any_connection(url, log):
    connected: list[str] = []

    def connect(ip: str, _port: int, _timeout_s: float) -> Any:
        connected.append(ip)
        raise OSError

    http = GuardedHttp(Guard(()), resolve=lambda *_: ["10.0.0.7"], connect=connect)
    sending = Sending(http=http)
    sending.send(url)
    until(lambda: sending.counted("refused") == 1)
    sending.close()
    assert connected == []
    assert [line["event"] for line in log] == ["webhook_refused"]


def test_a_silent_receiver_keeps_nobody_waiting_who_sends():
    sending = Sending()
    with receiver(200) as server:
        server.silent.clear()
        for _ in range(50):
            sending.send(server.url)  # returns although not even the first was answered
        until(lambda: len(server.came) == 1)
        assert sending.counted("sent") == 0
        server.silent.set()
        until(lambda: sending.counted("sent") == 50)
    sending.close()


def test_receivers_that_hang_keep_no_other_waiting(monkeypatch, log):
    monkeypatch.setattr(webhook, "MAX_HOST_BYTES", 40 * len(BODY))
    sending = Sending(threads=4)
    with receiver(200) as hanging, receiver(200) as good:
        hanging.silent.clear()
        for _ in range(50):
            sending.send(hanging.url)
        for _ in range(20):
            sending.send(good.url)
        until(lambda: len(good.came) == 20)
        assert len(hanging.came) <= webhook.MOST_AT_ONCE
        assert 50 - 40 - webhook.MOST_AT_ONCE <= sending.counted("lost") <= 10
        hanging.silent.set()
    sending.close()


def test_what_waits_is_bounded_and_what_is_too_large_is_not_taken(monkeypatch, log):
    monkeypatch.setattr(webhook, "MAX_WAITING_BYTES", 3 * len(BODY))
    sending = Sending()
    with receiver(200) as server:
        server.silent.clear()
        sending.send(server.url)
        until(lambda: len(server.came) == 1)
        for _ in range(5):
            sending.send(server.url)
        assert sending.counted("lost") == 2
        sending.send(server.url, b"x" * (webhook.MAX_BODY_BYTES + 1))
        assert sending.counted("refused") == 1
        server.silent.set()
        until(lambda: sending.counted("sent") == 4)
    sending.close()
    assert [line["event"] for line in log] == ["webhook_lost"] * 2 + ["webhook_refused"]


def test_at_the_stop_what_waits_is_tried_once_more_and_the_rest_told_as_lost():
    sending = Sending(pauses_s=(3600.0,))
    with receiver(500, 200) as server:
        sending.send(server.url)
        until(lambda: len(server.came) == 1)
        sending.close(5.0)
        assert sending.counted("sent") == 1
    late = Sending(pauses_s=(3600.0,))
    with receiver(500) as server:
        late.send(server.url)
        until(lambda: len(server.came) == 1)
        late.close(0.0)
    assert late.counted("lost") == 1


def test_at_the_stop_all_threads_are_at_whoever_is_left():
    sending = Sending(threads=4)
    with receiver(200) as server:
        server.silent.clear()
        for _ in range(8):
            sending.send(server.url)
        until(lambda: len(server.came) == webhook.MOST_AT_ONCE)
        sending.sender.close(10.0)
        until(lambda: len(server.came) == 4)
        server.silent.set()
        until(lambda: sending.counted("sent") == 8)
    sending.close()


def test_without_a_secret_it_is_sent_unsigned():
    sending = Sending(key=None)
    with receiver(200) as server:
        sending.send(server.url)
        until(lambda: sending.counted("sent") == 1)
    [(told, _)] = server.came
    assert "webhook-signature" not in told
    sending.close()
