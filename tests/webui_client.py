"""An SD WebUI as tests see it: a client without opinions, a stand-in for it to talk to,
and how answers are compared.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from PIL import Image

from scheduler.local.standin.process import StandinOptions, StandinProcess

SAMPLES = Path(__file__).parent / "samples" / "a1111"
SMALL = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "seed": 1, "sampler_name": "Euler"}
LONG = SMALL | {"steps": 60}
DEADLINE_S = 60.0


class Webui:
    """One server's API, asked as a client asks; `standin` is the process behind it, if it is ours."""

    def __init__(self, base_url: str, standin: StandinProcess | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._standin = standin
        self.pool = ThreadPoolExecutor(8)

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        path = path if path.startswith("/") else f"/sdapi/v1/{path}"
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.base_url + path, timeout=DEADLINE_S, **more)

    def get(self, path: str) -> Any:
        return self.good("GET", path)

    def post(self, path: str, **body: Any) -> Any:
        return self.good("POST", path, json=body)

    def good(self, method: str, path: str, **more: Any) -> Any:
        response = self.ask(method, path, **more)
        assert response.status_code == 200, response.text[:500]
        return response.json()

    def later(self, path: str, **body: Any) -> Future[requests.Response]:
        return self.pool.submit(self.ask, "POST", path, json=body)

    def sampling(self, least: int = 1) -> bool:
        state = self.get("progress")["state"]
        return state["job_count"] > 0 and state["sampling_step"] >= least

    @property
    def standin(self) -> StandinProcess:
        assert self._standin is not None, "this is a real server"
        return self._standin

    def stats(self) -> dict[str, Any]:
        return self.standin.stats()

    def refuses(self) -> bool:
        address = urlsplit(self.base_url)
        try:
            socket.create_connection((address.hostname or "", address.port or 0), timeout=0.5).close()
        except ConnectionRefusedError:
            return True
        except (ConnectionResetError, TimeoutError):  # it closed the door while this one stood before it
            return False
        return False


@contextmanager
def started(**options: Any) -> Iterator[Webui]:
    pace = {"seconds_per_step": 0.02, "switch_seconds": 0.1} | options
    with StandinProcess(StandinOptions(**pace)) as standin:
        webui = Webui(standin.base_url, standin)
        try:
            yield webui
        finally:
            standin.kill()  # first, so that no request of the pool waits for an answer
            webui.pool.shutdown()


def until(true: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def like(expected: Any, got: Any) -> bool:
    if expected == "<any>":
        return True
    if isinstance(expected, dict):
        named = {key: value for key, value in expected.items() if key != "..."}
        return (
            isinstance(got, dict)
            and all(key in got and like(value, got[key]) for key, value in named.items())
            and ("..." in expected or got.keys() == named.keys())
        )
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(like, expected, got))
    return type(expected) is type(got) and bool(expected == got)


def picture(encoded: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
    image.load()
    return image


def png(colour: tuple[int, int, int] = (200, 40, 40), size: tuple[int, int] = (64, 64)) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def info_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    info = json.loads(answer["info"])
    assert isinstance(info, dict)
    return info
