"""What an A1111 engine says of the job that it is at, and waiting for the end of one; it sends no job and ends none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.domain.errors import Counts, EngineDown, EngineHung, Interrupted
from scheduler.domain.ports import Clock, Preview
from scheduler.domain.task import Progress
from scheduler.pictures import BadImage, from_base64, sniff
from scheduler.sd_api_client import NoSuchRoute, SdApiClient

POLL_S = 0.1
_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Job:
    """One look at the engine. `stamp` tells jobs apart, whoever posted them; None when the engine does not tell."""

    is_idle: bool
    stamp: Any
    progress: Progress


class Jobs:
    """The jobs of one engine, which takes them one after the other. `sleep` is how waits pass."""

    def __init__(self, client: SdApiClient, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._clock = clock
        self._sleep = sleep

    def look(self) -> Job:
        """Return what the engine is at. Raises EngineDown, NoSuchRoute for a build that does not tell."""
        return job_of(self._client.progress())

    def stamp(self) -> Any:
        """Return the stamp of the present job, None when it cannot be told."""
        try:
            return self.look().stamp
        except EngineDown:
            return None

    def has_ended(self, stamp: Any, *, within_s: float) -> bool:
        """Wait until the engine is not at the job `stamp` any more (at none, when None);
        False if it does not say so.
        """
        give_up_s = self._clock.monotonic() + within_s
        while self._clock.monotonic() < give_up_s:
            try:
                job = self.look()
            except NoSuchRoute:
                return False
            except EngineDown:
                pass
            else:
                if job.is_idle or (stamp is not None and job.stamp != stamp):
                    return True
            self._sleep(POLL_S)
        return False

    def await_idle(self, *, within_s: float, is_interrupted: Callable[[], bool]) -> None:
        """Wait until nothing that was posted before this call can still run.

        Raises EngineDown, Interrupted, or EngineHung (which costs the task nothing) after `within_s`.
        """
        give_up_s = self._clock.monotonic() + within_s
        first: Job | None = None
        while not is_interrupted():
            try:
                job = self.look()
            except NoSuchRoute:
                self._client.options()  # a build that does not tell; or no engine at all, which this tells
                return
            # Another job than the first seen is other people's.
            if job.is_idle or (first is not None and job.stamp != first.stamp):
                return
            first = first or job
            if self._clock.monotonic() >= give_up_s:
                raise EngineHung(f"the engine is still at an earlier job after {within_s:g} s", counts=Counts.NOTHING)
            self._sleep(POLL_S)
        raise Interrupted


def job_of(said: Mapping[str, Any]) -> Job:
    """Read an answer of the progress route, whatever is in it."""
    state = said.get("state")
    state = state if isinstance(state, dict) else {}
    percent = max(0, min(100, round(100 * _number(said.get("progress")))))
    eta_s = max(0, min(_DAY_S, round(_number(said.get("eta_relative")))))
    return Job(
        is_idle=not state.get("job") and not state.get("job_count"),
        stamp=state.get("job_timestamp"),
        progress=Progress(percent, max(0, int(_number(state.get("sampling_step")))), eta_s),
    )


def preview_of(said: Mapping[str, Any]) -> Preview | None:
    """Return the picture in the making that an answer of the progress route holds, None when there is none."""
    encoded = said.get("current_image")
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        data = from_base64(encoded)
    except BadImage:
        return None
    kind = sniff(data)
    return Preview(data, kind.media_type) if kind else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else 0.0
