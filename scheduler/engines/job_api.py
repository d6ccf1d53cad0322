"""An asynchronous job API behind the `Engine` port: posts a request once, follows its job, takes it up again.

The API queues jobs by itself, stores their results in S3, and has no way to stop one: a run that is interrupted or
overdue is left to end there, and what is posted next waits behind it.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from scheduler.domain.errors import (
    BadResult,
    Counts,
    EngineDown,
    EngineLost,
    Fatal,
    SchedulerError,
    Transient,
)
from scheduler.domain.pace import Needs
from scheduler.domain.ports import Clock, Inputs, Output, PreparedRun, Preview
from scheduler.domain.routing import kind_for
from scheduler.domain.task import Progress, Task
from scheduler.engine_http import NobodyListens, NoSuchRoute
from scheduler.engines.job_api_client import JobApiClient
from scheduler.engines.job_api_errors import failed, refused
from scheduler.engines.job_api_job import STAGES, Following, Job, Stage, pauses, read_job
from scheduler.engines.job_api_request import addresses, checked_path, encode
from scheduler.engines.restart import RestartCommand
from scheduler.engines.turn import Slot

log = structlog.get_logger()
BROKEN_S = 600.0
"""For how long a host that failed counts as broken while nothing speaks against it; then a task may try it again."""
Wait = Callable[[threading.Event, float], object]


@dataclass(frozen=True, slots=True)
class _Broken:
    """The words in which a job last told of a broken host, and when (monotonic seconds)."""

    words: str
    at_s: float


class JobApiAnswer:
    """A job that ended well. Its result lies in S3 already and is not fetched."""

    def __init__(self, job: Job, warnings: tuple[str, ...]) -> None:
        self._job = job
        self._warnings = warnings

    def output(self) -> Output:
        """Return the address of the result. Raises BadResult when the job shows none."""
        uri = self._job.result_uri()
        return Output(images=(), checkpoint=None, sampler=None, warnings=self._warnings, result_uris=(uri,))


class JobApiEngine:
    """One job API. `inputs` says which pictures a task may point the API at; `wait` is how pauses pass."""

    def __init__(
        self,
        name: str,
        client: JobApiClient,
        *,
        clock: Clock,
        inputs: Inputs,
        runtimes: frozenset[str],
        restart_command: Sequence[str],
        dice: random.Random | None = None,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.name = name
        self.runtimes = runtimes
        self._client = client
        self._clock = clock
        self._inputs = inputs
        self._restart_command = RestartCommand(restart_command, clock)
        self._dice = dice or random.Random()
        self._wait = wait
        self._slot = Slot()
        self._waited_s = 0.0
        self._broken: _Broken | None = None

    def can_run(self, task: Task) -> bool:
        """See the port."""
        return kind_for(task) == "job_api"

    def needs(self, task: Task) -> Needs:
        """See the port. What a request of another API asks for, only that API knows."""
        return Needs(task.checkpoint)

    # what the engine is and has

    def probe(self) -> None:
        """See the port."""
        try:
            self._client.require_health()
        except NobodyListens:
            self._broken = None  # whatever comes up there next is another process
            raise

    def title(self, checkpoint: str | None) -> str | None:
        """See the port: the paths stand for the models, and no task names one."""
        return checkpoint

    def loaded(self) -> str | None:
        """See the port: the API does not tell."""
        return None

    def progress(self) -> Progress | None:
        """See the port: the API tells that a job is at work, and not how far it is."""
        return None

    def preview(self) -> Preview | None:
        """See the port: the API shows no pictures in the making."""
        return None

    # before the run

    def prepare(self, task: Task, *, seed_key: str) -> PreparedRun:
        """See the port. Pictures that the task points at are fetched by the API: here they are proved, not sent."""
        path = checked_path(task.api_path)
        for name, address in addresses(task.payload).items():
            self._inputs.image(address, field=name)
        body = encode(task, seed_key=seed_key)
        return PreparedRun(
            task=task,
            path=path,
            body=body,
            image_count=None,
            checkpoint=None,
            sampler=None,
            estimate_bytes=len(body),
        )

    def smaller(self, run: PreparedRun) -> PreparedRun:
        """See the port. A request is for one picture already; the job that ran out of memory has ended."""
        return replace(run, resume_job_id=None)

    # the run

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> JobApiAnswer:
        """See the port. The deadline starts when the API begins with the job."""
        with self._slot.take(run) as turn:
            job = self._resumed(run)
            if job is None:
                self._slot.begin(turn)
                job = self._posted(run)
            if on_sent is not None:
                on_sent(job.job_id)
            following = Following(job, now=self._clock.monotonic(), deadline_s=deadline_s)
            try:
                job = self._followed(following, turn.stopped)
            finally:
                self._waited_s = following.waited_s(self._clock.monotonic())
        if job.stage is Stage.FAILED:
            raise self._failed(failed(job.error or job.status))
        self._broken = None
        return JobApiAnswer(job, run.warnings)

    def waited_s(self) -> float:
        """See the port."""
        return self._waited_s

    def interrupt(self, run: PreparedRun) -> bool:
        """See the port. The run ends here; its job goes on in the API, which cannot be told to stop it."""
        return self._slot.interrupt(run, lambda: True)

    # after failures

    def free_memory(self) -> None:
        """See the port: the API frees memory by itself or not at all."""
        self._client.require_health()

    def golden(self, *, deadline_s: float) -> None:  # noqa: ARG002 - the port's; nothing is rendered here
        """See the port. The API makes nothing without a picture in S3,
        so what its jobs last told of the host decides.
        """
        self.probe()
        broken = self._broken
        if broken is not None and self._clock.monotonic() - broken.at_s < BROKEN_S:
            raise Fatal(f"the last job that ended told of a broken host: {broken.words}", engine=broken.words)

    def restart(self) -> bool:
        """Run the configured restart command; return whether it ended well. At most once in ten minutes."""
        if not self._restart_command.run(self.name):
            return False
        self._broken = None
        return True

    # inside

    def _resumed(self, run: PreparedRun) -> Job | None:
        """Return the job that the run had before, None when it had none or the API knows no more of it."""
        if run.resume_job_id is None:
            return None
        try:
            job = read_job(self._client.job(run.resume_job_id), of=run.resume_job_id)
        except NoSuchRoute:
            log.info("job_gone", engine=self.name, task_id=run.task.task_id, job_id=run.resume_job_id)
            return None
        except BadResult:  # nonsense says nothing of the job: it is asked after again, like any other
            job = Job(job_id=run.resume_job_id, status="pending")
        log.info("job_resumed", engine=self.name, task_id=run.task.task_id, job_id=job.job_id, status=job.status)
        return job

    def _posted(self, run: PreparedRun) -> Job:
        """Post the request and return the job that came of it."""
        status, body = self._client.submit(run.path, run.body)
        if not 200 <= status < 300:
            error = refused(status, body)
            if isinstance(error, EngineDown) and status in {404, 405}:
                self._client.require_health()  # an API that is not up at all says so here
                raise Transient(f"this engine has no {run.path}", counts=Counts.TRY, engine=error.engine)
            raise self._failed(error)
        try:
            return read_job(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise BadResult(f"the job API took a request and answered with no JSON: {error}") from error

    def _followed(self, following: Following, stopped: threading.Event) -> Job:
        """Ask after a job until it has ended, or until it is told to stop."""
        strange: set[str] = set()
        for pause_s in pauses(self._dice):
            now = following.job
            if now.has_ended or stopped.is_set():
                break
            if now.status not in STAGES and now.status not in strange:
                strange.add(now.status)
                log.warning("job_status_unknown", engine=self.name, job_id=now.job_id, status=now.status)
            if (error := following.overdue(self._clock.monotonic())) is not None:
                raise error
            self._wait(stopped, pause_s)
            self._ask(following)
        return following.job

    def _ask(self, following: Following) -> None:
        """Ask once. Silence and nonsense are passed over for a while; that the job is gone is not."""
        job_id = following.job.job_id
        try:
            following.heard(read_job(self._client.job(job_id), of=job_id), self._clock.monotonic())
        except NoSuchRoute as error:
            raise EngineLost(f"the job API knows no more of job {job_id}: it was restarted under it") from error
        except (EngineDown, BadResult) as error:
            following.missed(error.message, self._clock.monotonic())

    def _failed(self, error: SchedulerError) -> SchedulerError:
        """Return `error`, remembering that the host is broken when it says so."""
        if isinstance(error, Fatal):
            self._broken = _Broken(error.message, self._clock.monotonic())
        return error
