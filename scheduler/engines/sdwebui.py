"""An A1111 engine behind the `Engine` port: prepares tasks for it, runs them one at a time, judges what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from scheduler.domain.errors import (
    Counts,
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    Rejected,
    SchedulerError,
    Transient,
)
from scheduler.domain.pace import Needs
from scheduler.domain.ports import Clock, Inputs, PreparedRun, Preview
from scheduler.domain.task import Progress, Task, TaskType
from scheduler.engines import sdwebui_payload
from scheduler.engines.restart import RestartCommand
from scheduler.engines.sdwebui_answer import SdWebUiAnswer
from scheduler.engines.sdwebui_catalogue import Catalogue
from scheduler.engines.sdwebui_errors import classify
from scheduler.engines.sdwebui_inputs import with_pictures
from scheduler.engines.sdwebui_payload import choose_sampler, draft, encode, one_at_a_time
from scheduler.engines.sdwebui_progress import Jobs, preview_of
from scheduler.engines.turn import INTERRUPT_GRACE_S, Slot, prove
from scheduler.sd_api_client import ROOT, AnswerTimedOut, EngineResponse, NoSuchRoute, SdApiClient

log = structlog.get_logger()

MAX_ERROR_BYTES = 1 << 20
GOLDEN = {"prompt": "golden", "steps": 1, "width": 64, "height": 64, "seed": 1}
_RENDERS = frozenset({TaskType.TXT2IMG, TaskType.IMG2IMG})


class SdWebUiEngine:
    """One A1111 server. `sleep` is how waits for the engine pass; everything else is on the port."""

    def __init__(
        self,
        name: str,
        client: SdApiClient,
        *,
        clock: Clock,
        max_pixels: int,
        inputs: Inputs,
        runtimes: frozenset[str],
        restart_command: Sequence[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.runtimes = runtimes
        self._inputs = inputs
        self._client = client
        self._clock = clock
        self._max_pixels = max_pixels
        self._restart_command = RestartCommand(restart_command, clock)
        self._jobs = Jobs(client, clock, sleep)
        self._catalogue = Catalogue(client, clock)
        self._slot = Slot()
        # Whoever posted before us, a killed scheduler for one, may have left a job running.
        self._may_be_busy = True
        self._loaded: str | None = None
        self._posts = 0

    def can_run(self, task: Task) -> bool:
        """See the port."""
        return task.task_type is not TaskType.PIPELINE

    def needs(self, task: Task) -> Needs:
        """See the port."""
        return sdwebui_payload.needs(task)

    # what the engine is and has

    def probe(self) -> None:
        """See the port."""
        try:
            self._catalogue.update()
        except EngineDown:
            self._forget()
            raise

    def title(self, checkpoint: str | None) -> str | None:
        """See the port."""
        return self._catalogue.title(checkpoint)

    def loaded(self) -> str | None:
        """See the port. While a run is on, it is the checkpoint of that run."""
        loaded = self._loaded
        return self._catalogue.title(loaded) if loaded else None

    def progress(self) -> Progress | None:
        """See the port."""
        turn = self._slot.now
        if turn is None or not turn.is_posted:
            return None
        try:
            job = self._jobs.look()
        except EngineDown:
            return None
        return None if job.is_idle else job.progress

    def preview(self) -> Preview | None:
        """See the port. What comes after the look may be another's, so it counts only while the run is ours."""
        turn = self._slot.now
        if turn is None or not turn.is_posted:
            return None
        try:
            said = self._client.progress(with_picture=True)
        except (EngineDown, NoSuchRoute):
            return None
        found = preview_of(said)
        return found if self._slot.now is turn else None

    # before the run

    def prepare(self, task: Task, *, seed_key: str) -> PreparedRun:
        """See the port."""
        if not self.can_run(task):
            said = f"the runtime {task.runtime or self.name} is an SD WebUI, which runs no {task.task_type}"
            raise Rejected(said, field="task_type")
        payload = with_pictures(task.payload, self._inputs)
        made = draft(task.task_type, payload, seed_key=seed_key, max_pixels=self._max_pixels)
        checkpoint = sampler = None
        if task.task_type in _RENDERS:
            self._catalogue.ensure()
            checkpoint = self._catalogue.choose(task, made.body)
            sampler = choose_sampler(made.body, self._catalogue.samplers)
        body = encode(made.body)
        return PreparedRun(
            task=task,
            path=ROOT + task.task_type,
            body=body,
            image_count=made.images,
            checkpoint=checkpoint,
            sampler=sampler,
            estimate_bytes=made.estimate_bytes(body),
            warnings=made.warnings,
        )

    def smaller(self, run: PreparedRun) -> PreparedRun:
        """See the port. What cannot be made one by one stays as it is."""
        body = one_at_a_time(run.body) if run.task.task_type in _RENDERS else None
        return run if body is None else replace(run, body=body)

    # the run

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> SdWebUiAnswer:
        """See the port. The deadline starts when the engine is free."""
        response: EngineResponse | None = None
        try:
            with self._slot.take(run) as turn:
                if self._may_be_busy:
                    self._jobs.await_idle(within_s=deadline_s, is_interrupted=turn.stopped.is_set)
                    self._may_be_busy = False
                self._slot.begin(turn)
                response = self._post(run, deadline_s, on_sent and partial(on_sent, None))
        except Interrupted:
            if response is not None:
                response.close()
            raise
        if response.status != 200:
            raise self._refused(run, response)
        post = self._posts
        return SdWebUiAnswer(
            response,
            run,
            checkpoints=self._catalogue.checkpoints,
            max_pixels=self._max_pixels,
            learn=lambda title, is_right: self._learn(post, title, is_right=is_right),
        )

    def waited_s(self) -> float:
        """See the port: the engine does not tell."""
        return 0.0

    def interrupt(self, run: PreparedRun) -> bool:
        """See the port. From now on whatever the run brings is no result, even if the engine did not hear of it."""
        return self._slot.interrupt(run, self._send_interrupt)

    # after failures

    def free_memory(self) -> None:
        """See the port. The log tells what it brought: memory that stays taken is held by something else."""
        self._loaded = None
        before = self._gpu_memory()
        try:
            self._client.unload_checkpoint()
        except NoSuchRoute:
            self._client.options()  # a build that cannot unload; or no engine at all, which this tells
        after = self._gpu_memory()
        log.info(
            "engine_memory_freed",
            engine=self.name,
            free_before_bytes=before.get("free"),
            free_bytes=after.get("free"),
            total_bytes=after.get("total"),
        )

    def golden(self, *, deadline_s: float) -> None:
        """See the port."""
        default = self._catalogue.title(None)
        known = default if default and self._catalogue.checkpoints.find(default) else None
        task = Task(
            task_id="golden", task_type=TaskType.TXT2IMG, payload=dict(GOLDEN), fingerprint="", checkpoint=known
        )
        prove(self, task, deadline_s=deadline_s)

    def restart(self) -> bool:
        """Run the configured restart command; return whether it ended well. At most once in ten minutes."""
        if not self._restart_command.run(self.name):
            return False
        self._forget()
        self._may_be_busy = True
        return True

    # inside

    def _post(self, run: PreparedRun, deadline_s: float, on_sent: Callable[[], None] | None) -> EngineResponse:
        self._posts += 1
        if run.task.task_type in _RENDERS:
            self._loaded = run.checkpoint or self.title(None)
        try:
            return self._client.generate(run.path, run.body, deadline_s, on_sent=on_sent)
        except AnswerTimedOut:
            raise self._overdue(deadline_s) from None
        except EngineLost:
            self._forget()
            self._may_be_busy = True
            raise
        except EngineDown:
            self._forget()
            raise

    def _overdue(self, deadline_s: float) -> SchedulerError:
        """Interrupt a run past its deadline, wait for the engine to obey, and say what became of it."""
        self._may_be_busy = True
        stamp = self._jobs.stamp()  # when it changes, the engine is at another's job
        self._send_interrupt()
        ran = f"it ran longer than task_deadline_s ({deadline_s:g} s)"
        if self._jobs.has_ended(stamp, within_s=INTERRUPT_GRACE_S):
            return DeadlineExceeded(f"{ran} and was interrupted")
        self._forget()
        return EngineHung(f"{ran}, and the engine did not stop {INTERRUPT_GRACE_S:g} s after an interrupt")

    def _refused(self, run: PreparedRun, response: EngineResponse) -> SchedulerError:
        """Return what an answer other than 200 means."""
        error = classify(response.status, response.read(MAX_ERROR_BYTES) or b"", payload=run.task.payload)
        if isinstance(error, EngineDown):
            if response.status in {404, 405} and self._is_up():
                return Transient(f"this engine has no {run.path}", counts=Counts.TRY, engine=error.engine)
            self._forget()
        if isinstance(error, EngineLost):
            self._may_be_busy = True
        if isinstance(error, Fatal):
            self._loaded = None
        return error

    def _is_up(self) -> bool:
        try:
            self._client.options()
        except EngineDown:
            return False
        return True

    def _send_interrupt(self) -> bool:
        try:
            self._client.interrupt()
        except EngineDown:
            return False
        return True

    def _gpu_memory(self) -> dict[str, Any]:
        """Return the bytes of the GPU's memory, `free` and `total`; nothing where the engine does not tell."""
        try:
            cuda = self._client.memory().get("cuda")
        except EngineDown:
            return {}
        system = cuda.get("system") if isinstance(cuda, dict) else None
        return system if isinstance(system, dict) else {}

    def _learn(self, post: int, title: str | None, *, is_right: bool) -> None:
        """Take in which checkpoint made an answer, unless another run has begun since."""
        if not is_right:
            self._catalogue.expire()
        if post == self._posts:
            self._loaded = title

    def _forget(self) -> None:
        self._catalogue.expire()
        self._loaded = None
