"""The asynchronous job API: its routes and their time limits; it knows no tasks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from scheduler.domain.errors import EngineDown, EngineLost
from scheduler.engine_http import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, AnswerTimedOut, EngineHttp

SUBMIT_TIMEOUT_S = 30.0
"""The API takes a request within a second; longer than this and nobody knows whether it did."""
MAX_ANSWER_BYTES = 1 << 20
JOBS = "/api/v1/jobs/"
NOT_WELL = frozenset({"unhealthy", "starting", "initializing", "error", "down"})


class JobApiClient:
    """One engine's job API; safe for threads. Every method raises EngineDown when it gets no good answer."""

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._http = EngineHttp(base_url, api="job", connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)

    def require_health(self) -> None:
        """Return if the API says that it is well: ``GET /health`` answers ``{"status": "healthy", "message": ...}``."""
        answer = self._http.get_json("/health")
        status = answer.get("status") if isinstance(answer, dict) else None
        if isinstance(status, str) and status.lower() in NOT_WELL:
            raise EngineDown(f"the job API says that it is {status}: {answer.get('message')}")

    def submit(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Post a request once; return the answer's status and body, whatever they are.

        Raises EngineDown when the API never had the whole request, EngineLost when it may have taken it.
        """
        try:
            response = self._http.post(path, body, SUBMIT_TIMEOUT_S)
        except AnswerTimedOut as error:
            raise EngineLost(f"the job API took a request and said nothing for {SUBMIT_TIMEOUT_S:g} s") from error
        return response.status, response.read(MAX_ANSWER_BYTES) or b""

    def job(self, job_id: str) -> Any:
        """Return what the API says of a job. Raises NoSuchRoute when it knows of none with this id."""
        return self._http.get_json(JOBS + quote(job_id, safe=""))
