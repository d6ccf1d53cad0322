"""One job as the job API tells of it, and when to stop believing that it will end; pure, all times are passed in.

An answer is ``{"job_id", "status", "result_s3_uri", "error"}``, status ``pending``, ``processing``, ``completed`` or
``failed``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from scheduler.domain.errors import BadResult, DeadlineExceeded, EngineBusy, EngineHung, EngineLost, SchedulerError
from scheduler.wire.json_body import shorten

FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 2.0
PAUSE_GROWTH = 1.5
JITTER = 0.2
"""Share by which a pause may be shorter or longer, so that many workers of one API do not ask in step."""
SILENCE_S = 60.0
"""How long the API may say nothing of a job before the job counts as lost: time for it to be started again."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._:-]{0,127}")
_S3_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s\x00-\x1f\x7f]{1,1024}")


class Stage(Enum):
    """How far a job is."""

    WAITING = auto()
    RUNNING = auto()
    DONE = auto()
    FAILED = auto()


STAGES = {
    "pending": Stage.WAITING,
    "processing": Stage.RUNNING,
    "completed": Stage.DONE,
    "failed": Stage.FAILED,
    "cancelled": Stage.FAILED,
    "canceled": Stage.FAILED,
}
"""Statuses in small letters. The API as described has the first four; one that is not here is a job still at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One look at a job. `result` and `error` are the API's own words, None and empty where it has none."""

    job_id: str
    status: str
    result: Any = None
    error: str = ""

    @property
    def stage(self) -> Stage:
        """How far it is."""
        return STAGES.get(self.status, Stage.RUNNING)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.stage in {Stage.DONE, Stage.FAILED}

    def result_uri(self) -> str:
        """Return where its result lies. Raises BadResult for a job that ended well without an address to show."""
        if not isinstance(self.result, str) or not _S3_URI.fullmatch(self.result):
            raise BadResult(f"job {self.job_id} is completed, but its result_s3_uri is {shorten(self.result)}")
        return self.result


def read_job(answer: Any, *, of: str | None = None) -> Job:
    """Return the job in an answer. Raises BadResult when there is none in it,
    or not the job `of` that was asked for.
    """
    if not isinstance(answer, dict):
        raise BadResult(f"the job API answered with no job: {shorten(answer)}")
    job_id, status = answer.get("job_id"), answer.get("status")
    if isinstance(job_id, int) and not isinstance(job_id, bool):
        job_id = str(job_id)
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise BadResult(f"the job API answered with no usable job_id: {shorten(job_id)}")
    if of is not None and job_id != of:
        raise BadResult(f"asked for job {of}, the job API told of {job_id}")
    if not isinstance(status, str):
        raise BadResult(f"the job API told no status of job {job_id}: {shorten(status)}")
    error = answer.get("error")
    words = "" if error is None else error if isinstance(error, str) else shorten(error, 500)
    return Job(job_id=job_id, status=status.lower(), result=answer.get("result_s3_uri"), error=words)


def pauses(dice: random.Random) -> Iterator[float]:
    """Yield the seconds to wait before each question after a job: short at first, then longer, never in step."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s * dice.uniform(1 - JITTER, 1 + JITTER)
        pause_s = min(MAX_PAUSE_S, pause_s * PAUSE_GROWTH)


class Following:
    """What was heard of one job, and when it is to be given up. `now` is monotonic seconds everywhere.

    A job that waits behind others has not begun: its deadline starts when it does.
    """

    def __init__(self, job: Job, *, now: float, deadline_s: float) -> None:
        self.job = job
        self._deadline_s = deadline_s
        self._first_s = self._since_s = self._heard_s = now
        self._is_silent = False

    def heard(self, job: Job, now: float) -> None:
        """Take in an answer about the job."""
        if self.job.stage is Stage.WAITING and job.stage is not Stage.WAITING:
            self._since_s = now
        self.job, self._heard_s, self._is_silent = job, now, False

    def waited_s(self, now: float) -> float:
        """Return how long it has waited, or had when it began."""
        return (now if self.job.stage is Stage.WAITING else self._since_s) - self._first_s

    def missed(self, why: str, now: float) -> None:
        """Take in that a question brought no answer. Raises EngineLost when none came for too long."""
        self._is_silent = True
        if now - self._heard_s > SILENCE_S:
            raise EngineLost(f"nothing was heard of job {self.job.job_id} for {SILENCE_S:g} s: {why}")

    def overdue(self, now: float) -> SchedulerError | None:
        """Return what it means that the job has not ended by `now`; None while it may go on."""
        if self.job.has_ended or now - self._since_s < self._deadline_s:
            return None
        limit = f"task_deadline_s ({self._deadline_s:g} s)"
        if self._is_silent:
            return EngineHung(f"job {self.job.job_id} did not end within {limit}, and the job API does not answer")
        if self.job.stage is Stage.WAITING:
            return EngineBusy(f"job {self.job.job_id} still waits behind others after {limit}")
        return DeadlineExceeded(f"it ran longer than {limit}; the job API has no way to stop job {self.job.job_id}")
