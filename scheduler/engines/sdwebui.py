"""An A1111 engine behind the `Engine` port: prepares tasks for it, runs them one at a time, judges what it says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scheduler.domain.errors import (
    Counts,
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    SchedulerError,
    Transient,
)
from scheduler.domain.ports import Clock, PreparedRun
from scheduler.domain.task import Progress, Task, TaskType
from scheduler.engines.restart import RestartCommand
from scheduler.engines.sdwebui_answer import SdWebUiAnswer
from scheduler.engines.sdwebui_catalogue import Catalogue
from scheduler.engines.sdwebui_errors import classify
from scheduler.engines.sdwebui_payload import choose_sampler, draft, encode, one_at_a_time
from scheduler.sd_api_client import ROOT, AnswerTimedOut, EngineResponse, NoSuchRoute, SdApiClient

INTERRUPT_GRACE_S = 30.0
"""How long an engine may take to obey an interrupt before it counts as hung."""
POLL_S = 0.1
MAX_ERROR_BYTES = 1 << 20
GOLDEN = {"prompt": "golden", "steps": 1, "width": 64, "height": 64, "seed": 1}
_RENDERS = frozenset({TaskType.TXT2IMG, TaskType.IMG2IMG})


@dataclass(slots=True)
class _Current:
    """The run that the engine's thread is in. Guarded by the run lock."""

    run: PreparedRun
    is_posted: bool = False
    is_interrupted: bool = False


class SdWebUiEngine:
    """One A1111 server. `sleep` is how waits for the engine pass; everything else is on the port."""

    def __init__(
        self,
        name: str,
        client: SdApiClient,
        *,
        clock: Clock,
        max_pixels: int,
        restart_command: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._client = client
        self._clock = clock
        self._max_pixels = max_pixels
        self._restart_command = RestartCommand(restart_command, clock)
        self._sleep = sleep
        self._catalogue = Catalogue(client, clock)
        # Guards `_current` and is held while an interrupt is sent: none can hit a run that came after.
        self._run_lock = threading.Lock()
        self._current: _Current | None = None
        # Whoever posted before us, a killed scheduler for one, may have left a job running.
        self._may_be_busy = True
        self._loaded: str | None = None
        self._posts = 0

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
        current = self._current
        if current is None or not current.is_posted:
            return None
        try:
            said = self._client.progress()
        except EngineDown:
            return None
        state = _state(said)
        if _is_idle(said):
            return None
        percent = max(0, min(100, round(100 * _number(said.get("progress")))))
        eta_s = max(0, min(86400, round(_number(said.get("eta_relative")))))
        return Progress(percent, max(0, int(_number(state.get("sampling_step")))), eta_s)

    # before the run

    def prepare(self, task: Task, *, seed_key: str) -> PreparedRun:
        """See the port."""
        made = draft(task.task_type, task.payload, seed_key=seed_key, max_pixels=self._max_pixels)
        checkpoint = sampler = None
        if task.task_type in _RENDERS:
            self._catalogue.ensure()
            checkpoint = self._choose_checkpoint(task, made.body)
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
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[], None] | None = None
    ) -> SdWebUiAnswer:
        """See the port. The deadline starts when the engine is free."""
        current = _Current(run)
        with self._run_lock:
            self._current = current
        try:
            self._await_idle(current, deadline_s)
            with self._run_lock:
                if current.is_interrupted:
                    raise Interrupted
                current.is_posted = True
            response = self._post(current, deadline_s, on_sent)
        finally:
            with self._run_lock:
                self._current = None
        if current.is_interrupted:
            response.close()
            raise Interrupted
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

    def interrupt(self, run: PreparedRun) -> bool:
        """See the port. From now on whatever the run brings is no result, even if the engine did not hear of it."""
        with self._run_lock:
            current = self._current
            if current is None or current.run is not run:
                return False
            current.is_interrupted = True
            return not current.is_posted or self._send_interrupt()

    # after failures

    def free_memory(self) -> None:
        """See the port."""
        self._loaded = None
        try:
            self._client.unload_checkpoint()
        except NoSuchRoute:
            self._client.options()  # a build that cannot unload; or no engine at all, which this tells

    def golden(self, *, deadline_s: float) -> None:
        """See the port."""
        default = self._catalogue.title(None)
        known = default if default and self._catalogue.checkpoints.find(default) else None
        task = Task(
            task_id="golden", task_type=TaskType.TXT2IMG, payload=dict(GOLDEN), fingerprint="", checkpoint=known
        )
        try:
            self.generate(self.prepare(task, seed_key="golden"), deadline_s=deadline_s).output()
        except (EngineDown, Interrupted):
            raise
        except SchedulerError as error:
            raise Fatal(f"even a tiny known picture failed: {error}", engine=getattr(error, "engine", None)) from error

    def restart(self) -> bool:
        """Run the configured restart command; return whether it ended well. At most once in ten minutes."""
        if not self._restart_command.run(self.name):
            return False
        self._forget()
        self._may_be_busy = True
        return True

    # inside

    def _choose_checkpoint(self, task: Task, body: dict[str, Any]) -> str | None:
        """Put the engine's title of the wanted checkpoint into `body`; return it, None if none is named.

        The engine's own option is never touched: it would outlive the task, and decide for tasks that name none.
        """
        overrides = dict(body.get("override_settings") or {})
        asked, field = overrides.pop("sd_model_checkpoint", None), "payload.override_settings.sd_model_checkpoint"
        if not asked:
            asked, field = task.checkpoint, "checkpoint"
        if not asked:
            return None
        title = self._catalogue.find(str(asked), field).title
        body["override_settings"] = overrides | {"sd_model_checkpoint": title}
        return title

    def _post(self, current: _Current, deadline_s: float, on_sent: Callable[[], None] | None) -> EngineResponse:
        run = current.run
        self._posts += 1
        if run.task.task_type in _RENDERS:
            self._loaded = run.checkpoint or self.title(None)
        try:
            return self._client.generate(run.path, run.body, deadline_s, on_sent=on_sent)
        except AnswerTimedOut:
            raise self._overdue(current, deadline_s) from None
        except EngineLost:
            self._forget()
            self._may_be_busy = True
            if current.is_interrupted:
                raise Interrupted from None
            raise
        except EngineDown:
            self._forget()
            raise

    def _overdue(self, current: _Current, deadline_s: float) -> SchedulerError:
        """Interrupt a run past its deadline, wait for the engine to obey, and say what became of it."""
        self._may_be_busy = True
        stamp = self._job_stamp()
        with self._run_lock:
            self._send_interrupt()
        give_up_s = self._clock.monotonic() + INTERRUPT_GRACE_S
        while self._clock.monotonic() < give_up_s:
            try:
                said = self._client.progress()
            except NoSuchRoute:
                break
            except EngineDown:
                pass
            else:
                # Another job than the one at the deadline is other people's.
                if _is_idle(said) or (stamp is not None and _state(said).get("job_timestamp") != stamp):
                    ended = f"it ran longer than task_deadline_s ({deadline_s:g} s) and was interrupted"
                    return Interrupted() if current.is_interrupted else DeadlineExceeded(ended)
            self._sleep(POLL_S)
        self._forget()
        return EngineHung(
            f"it ran longer than task_deadline_s ({deadline_s:g} s), and the engine did not stop "
            f"{INTERRUPT_GRACE_S:g} s after an interrupt"
        )

    def _await_idle(self, current: _Current, deadline_s: float) -> None:
        """Wait until nothing that was posted earlier can still run.

        Raises EngineDown, Interrupted, or EngineHung (which costs the task nothing) after a whole deadline.
        """
        if not self._may_be_busy:
            return
        give_up_s = self._clock.monotonic() + deadline_s
        stamp, is_first = None, True
        while not current.is_interrupted:
            try:
                said = self._client.progress()
            except NoSuchRoute:
                self._client.options()  # a build that does not tell; or no engine at all, which this tells
                break
            now_running = _state(said).get("job_timestamp")
            # Another job than the first seen is other people's: the engine takes them one after the other.
            if _is_idle(said) or (not is_first and now_running != stamp):
                break
            stamp, is_first = now_running, False
            if self._clock.monotonic() >= give_up_s:
                raise EngineHung(f"the engine is still at an earlier job after {deadline_s:g} s", counts=Counts.NOTHING)
            self._sleep(POLL_S)
        else:
            raise Interrupted
        self._may_be_busy = False

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

    def _job_stamp(self) -> Any:
        try:
            return _state(self._client.progress()).get("job_timestamp")
        except EngineDown:
            return None

    def _learn(self, post: int, title: str | None, *, is_right: bool) -> None:
        """Take in which checkpoint made an answer, unless another run has begun since."""
        if not is_right:
            self._catalogue.expire()
        if post == self._posts:
            self._loaded = title

    def _forget(self) -> None:
        self._catalogue.expire()
        self._loaded = None


def _state(said: Mapping[str, Any]) -> Mapping[str, Any]:
    state = said.get("state")
    return state if isinstance(state, dict) else {}


def _is_idle(said: Mapping[str, Any]) -> bool:
    state = _state(said)
    return not state.get("job") and not state.get("job_count")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else 0.0
