"""The stand-in's routes without a socket: what is where, who may ask, and when it is up."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from scheduler.local.serving.pace import Pace
from scheduler.local.serving.server import Request
from scheduler.local.standin.application import Application, Front
from scheduler.local.standin.engine import Engine
from scheduler.local.standin.state import FifoLock


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def application(clock: Callable[[], float] | None = None, **front: Any) -> Application:
    pace = Pace(seconds_per_step=0, switch_seconds=0)
    engine = Engine(["a.safetensors"], pace, pause=lambda _: None)
    return Application(engine, Front(**front), clock or Clock())


def ask(app: Application, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    sent = b"" if body is None else json.dumps(body).encode()
    reply = app.handle(Request(method, path, headers, sent))
    assert "X-Process-Time" in reply.headers
    return reply.status, json.loads(reply.body) if reply.content_type == "application/json" else reply.body


def basic(words: str) -> str:
    return "Basic " + base64.b64encode(words.encode()).decode()


def test_the_start_window_opens_the_page_before_the_api() -> None:
    clock = Clock()
    app = application(clock, ui=True, startup_seconds=10)
    seen = []
    for clock.now_s in (100.0, 104.9, 105.1, 109.9, 110.0):
        seen.append((ask(app, "GET", "/internal/ping")[0], ask(app, "GET", "/sdapi/v1/options")[0]))
    assert seen == [(404, 404), (404, 404), (200, 404), (200, 404), (200, 200)]
    assert ask(app, "GET", "/standin/stats")[0] == 200


def test_not_up_yet_looks_like_no_such_path() -> None:
    app = application(startup_seconds=10)
    assert ask(app, "GET", "/sdapi/v1/options") == (404, {"detail": "Not Found"})
    assert ask(app, "GET", "/standin/stats")[0] == 200


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "Not authenticated"),
        ("Bearer x", "Not authenticated"),
        ("Basic %%%", "Invalid authentication credentials"),
        (basic("ann"), "Invalid authentication credentials"),
        (basic("ann:guess"), "Incorrect username or password"),
        (basic("eve:"), "Incorrect username or password"),
        (basic("ann:secret"), None),
        (basic("bob:pass:word"), None),
    ],
)
def test_the_password_guards_the_api(header: str | None, detail: str | None) -> None:
    app = application(auth="ann:secret,bob:pass:word")
    status, answer = ask(app, "GET", "/sdapi/v1/progress", **({"authorization": header} if header else {}))
    if detail is None:
        assert status == 200
    else:
        refusal = {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}
        assert (status, answer) == (401, refusal)


def test_paths_and_verbs() -> None:
    app = application()
    assert ask(app, "GET", "/sdapi/v1/txt2img") == (405, {"detail": "Method Not Allowed"})
    assert ask(app, "GET", "/nothing") == (404, {"detail": "Not Found"})
    assert ask(app, "GET", "/sdapi/v1/progress?skip_current_image=true")[0] == 200
    assert ask(app, "GET", "/")[0] == 404
    assert ask(application(ui=True), "GET", "/")[0] == 200


@pytest.mark.parametrize(
    ("path", "answer"), [("interrupt", {}), ("skip", None), ("unload-checkpoint", {}), ("refresh-checkpoints", None)]
)
def test_control_calls_need_no_body(path: str, answer: Any) -> None:
    assert ask(application(), "POST", f"/sdapi/v1/{path}") == (200, answer)


def test_a_bug_is_shown_as_the_real_server_shows_any_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    app = application()
    monkeypatch.setattr(app._engine, "generate", lambda *_: 1 / 0)
    refusal = {"error": "ZeroDivisionError", "detail": "", "body": "", "errors": "division by zero"}
    assert ask(app, "POST", "/sdapi/v1/txt2img", {}) == (500, refusal)


def test_faults_are_ordered_told_and_forgotten() -> None:
    app = application()
    assert ask(app, "POST", "/standin/faults", {"kind": "oom", "match": "cat"})[0] == 200
    body = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64}
    assert [fault["kind"] for fault in ask(app, "GET", "/standin/stats")[1]["faults"]] == ["oom"]
    assert ask(app, "POST", "/sdapi/v1/txt2img", body)[1]["error"] == "OutOfMemoryError"
    assert ask(app, "GET", "/standin/stats")[1]["faults"] == []
    ask(app, "POST", "/standin/faults", {"kind": "oom"})
    assert ask(app, "DELETE", "/standin/faults") == (200, None)
    assert ask(app, "POST", "/sdapi/v1/txt2img", body)[0] == 200
    assert ask(app, "GET", "/standin/stats")[1]["requests"]["POST /sdapi/v1/txt2img"] == 2


@pytest.mark.parametrize(
    ("order", "status"),
    [({"kind": "earthquake"}, 400), ({"kind": "oom", "colour": "red"}, 400), ({"kind": "oom", "count": "x"}, 400)],
)
def test_an_order_that_makes_no_sense_is_refused(order: dict[str, Any], status: int) -> None:
    app = application()
    assert ask(app, "POST", "/standin/faults", order)[0] == status
    assert ask(app, "GET", "/standin/stats")[1]["faults"] == []


def test_the_lock_is_given_in_the_order_of_coming() -> None:
    lock, order = FifoLock(), []
    threads = []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(8):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            while lock.waiting <= number:
                pass
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    assert lock.waiting == 0
