"""The A1111 API: its routes and their time limits; it knows no tasks and no pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.domain.errors import EngineDown
from scheduler.engine_http import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    AnswerTimedOut,
    EngineHttp,
    EngineResponse,
    NoSuchRoute,
)

__all__ = ["ROOT", "AnswerTimedOut", "EngineResponse", "NoSuchRoute", "SdApiClient"]

PROGRESS_TIMEOUT_S = 2.0
ROOT = "/sdapi/v1/"


class SdApiClient:
    """One engine's API; safe for threads. See `EngineHttp` for what is sent how.

    Every method raises EngineDown (NoSuchRoute for a path that is not there) when it gets no good answer.
    """

    def __init__(
        self,
        base_url: str,
        auth: tuple[str, str] | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._http = EngineHttp(
            base_url, auth, api="A1111", connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )

    def options(self) -> dict[str, Any]:
        """Return the engine's settings; that this route answers is what being ready means."""
        return _object(self._get("options"), "options")

    def models(self) -> list[dict[str, Any]]:
        """Return the checkpoints as the engine lists them; hashes are null until the first load."""
        return _objects(self._get("sd-models"), "sd-models")

    def samplers(self) -> list[dict[str, Any]]:
        """Return the samplers, each with `name` and `aliases`."""
        return _objects(self._get("samplers"), "samplers")

    def schedulers(self) -> list[dict[str, Any]]:
        """Return the noise schedules, each with `name`, `label` and `aliases`; older builds have no such route."""
        return _objects(self._get("schedulers"), "schedulers")

    def progress(self, *, with_picture: bool = False) -> dict[str, Any]:
        """Return what the engine does now, and on request the picture in the making; it does not say for whom."""
        path = f"progress?skip_current_image={str(not with_picture).lower()}"
        return _object(self._get(path, timeout_s=min(PROGRESS_TIMEOUT_S, self._http.read_timeout_s)), "progress")

    def memory(self) -> dict[str, Any]:
        """Return the engine's own view of RAM and GPU memory."""
        return _object(self._get("memory"), "memory")

    def interrupt(self) -> None:
        """End whatever runs at its next step; harmless when nothing runs."""
        self._http.control(f"{ROOT}interrupt", b"", self._http.read_timeout_s)

    def unload_checkpoint(self, timeout_s: float = 30.0) -> None:
        """Drop the weights from the GPU; the next request loads them again by itself."""
        self._http.control(f"{ROOT}unload-checkpoint", b"", timeout_s)

    def refresh_checkpoints(self, timeout_s: float) -> None:
        """Make the engine look at its folder again; it waits for the running job first."""
        self._http.control(f"{ROOT}refresh-checkpoints", b"", timeout_s)

    def generate(
        self, path: str, body: bytes, deadline_s: float, *, on_sent: Callable[[], None] | None = None
    ) -> EngineResponse:
        """Post `body` once; see `EngineHttp.post`. `deadline_s` bounds the wait for the answer's first byte."""
        return self._http.post(path, body, deadline_s, on_sent=on_sent)

    def _get(self, route: str, *, timeout_s: float | None = None) -> Any:
        return self._http.get_json(ROOT + route, timeout_s=timeout_s)


def _object(answer: Any, route: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise EngineDown(f"{route} answered with no object: is this an A1111 API?")
    return answer


def _objects(answer: Any, route: str) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise EngineDown(f"{route} answered with no list: is this an A1111 API?")
    return [entry for entry in answer if isinstance(entry, dict)]
