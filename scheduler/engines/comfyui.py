"""A ComfyUI engine behind the `Engine` port: prepares graphs for it, runs them one at a time, judges how they end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import structlog

from scheduler.domain.errors import (
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    SchedulerError,
)
from scheduler.domain.pace import Needs
from scheduler.domain.ports import Clock, Inputs, PreparedRun, Preview
from scheduler.domain.task import Progress, Task, TaskType
from scheduler.engine_http import AnswerTimedOut
from scheduler.engines import comfyui_graph
from scheduler.engines.comfyui_answer import ComfyAnswer
from scheduler.engines.comfyui_client import PROMPT_TIMEOUT_S, ComfyClient
from scheduler.engines.comfyui_errors import failed, partly_refused, refused
from scheduler.engines.comfyui_events import Track
from scheduler.engines.comfyui_golden import golden, provable
from scheduler.engines.comfyui_pictures import Pictures
from scheduler.engines.comfyui_run import ComfyRun, is_success, split, taken, written
from scheduler.engines.comfyui_socket import EventSocket
from scheduler.engines.comfyui_watch import Overdue, Place, Watch
from scheduler.engines.restart import RestartCommand

log = structlog.get_logger()

INTERRUPT_GRACE_S = 30.0
"""How long an engine may take to obey an interrupt before it counts as hung."""
MAX_ANSWER_BYTES = 1 << 20
_LEAST_ESTIMATE_BYTES = 16 << 20
"""What the results of a graph may take whose size it does not tell."""
_BYTES_PER_PIXEL = 4


@dataclass(slots=True)
class _Current:
    """The run that the engine's thread is in. Guarded by the run lock."""

    run: PreparedRun
    is_posted: bool = False
    is_interrupted: bool = False
    track: Track | None = None


class ComfyUiEngine:
    """One ComfyUI server.

    `client_id` is this scheduler's name with the engine: what is left there under it, by a process before this one
    too, is ended before the first prompt. It must be nobody else's. `inputs` fetches pictures by address; without it
    such tasks are refused. `sleep` is how waits pass where there are no events.
    """

    def __init__(
        self,
        name: str,
        client: ComfyClient,
        *,
        clock: Clock,
        max_pixels: int,
        inputs: Inputs | None = None,
        runtimes: frozenset[str] = frozenset({"comfyui"}),
        client_id: str | None = None,
        restart_command: Sequence[str] = (),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.runtimes = runtimes
        self._client = client
        self._clock = clock
        self._max_pixels = max_pixels
        self._client_id = client_id or uuid.uuid4().hex
        self._restart_command = RestartCommand(restart_command, clock)
        self._sleep = sleep
        self._pictures = Pictures(client, inputs, max_pixels=max_pixels)
        self._watch = Watch(client, self._client_id, clock, sleep)
        # Guards `_current` and is held while an interrupt is sent: none can hit a run that came after.
        self._run_lock = threading.Lock()
        self._current: _Current | None = None
        self._may_be_busy = True
        self._cache_is_stale = False
        self._checkpoints: tuple[str, ...] = ()
        self._is_current = False
        self._loaded: str | None = None
        self._proven: str | None = None

    def can_run(self, task: Task) -> bool:
        """See the port."""
        return task.task_type is TaskType.PIPELINE and task.api_path is None

    def needs(self, task: Task) -> Needs:
        """See the port."""
        try:
            graph = comfyui_graph.read(task.payload).graph
        except Rejected:
            return Needs()
        return Needs(comfyui_graph.wanted(graph), comfyui_graph.work(graph))

    # what the engine is and has

    def probe(self) -> None:
        """See the port."""
        try:
            self._client.system_stats()
            if not self._is_current:
                self._checkpoints = tuple(self._client.models("checkpoints"))
                self._is_current = True
        except EngineDown:
            self._forget()
            raise

    def title(self, checkpoint: str | None) -> str | None:
        """See the port. There is no default checkpoint; a name without folder or ending is found too."""
        if checkpoint is None or checkpoint in self._checkpoints:
            return checkpoint
        named = [one for one in self._checkpoints if checkpoint in {PurePosixPath(one).name, PurePosixPath(one).stem}]
        return named[0] if len(named) == 1 else checkpoint

    def loaded(self) -> str | None:
        """See the port. While a run is on, it is the checkpoint of that run."""
        return self._loaded

    def progress(self) -> Progress | None:
        """See the port."""
        current = self._current
        track = current.track if current else None
        return track.progress(self._clock.monotonic()) if track else None

    def preview(self) -> Preview | None:
        """See the port. The engine sends them only if it was started with a preview method."""
        current = self._current
        return current.track.preview if current and current.track else None

    # before the run

    def prepare(self, task: Task, *, seed_key: str) -> ComfyRun:
        """See the port."""
        if task.task_type is not TaskType.PIPELINE:
            raise Rejected("a ComfyUI engine runs pipelines only", field="task_type")
        request = comfyui_graph.read(task.payload)
        graph = comfyui_graph.pin_seeds(request.graph, seed_key)
        pixels = comfyui_graph.bounded_pixels(graph, at=request.at, max_pixels=self._max_pixels)
        graph, uploads = self._pictures.upload(graph, at=request.at)
        named = comfyui_graph.checkpoints(graph)
        warnings = []
        if task.checkpoint is not None and self.title(task.checkpoint) not in named:
            warnings.append("checkpoint is ignored: the graph names what it loads")
        run = written(
            ComfyRun(
                task=task,
                path="/prompt",
                body=b"",
                image_count=None,
                checkpoint=comfyui_graph.wanted(graph),
                sampler=None,
                estimate_bytes=max(_LEAST_ESTIMATE_BYTES, pixels * _BYTES_PER_PIXEL),
                warnings=tuple(warnings),
                graph=graph,
                at=request.at,
                uploads=uploads,
                include_temp=request.include_temp,
                beside={**request.extra, "client_id": self._client_id},
            )
        )
        return replace(run, estimate_bytes=run.estimate_bytes + len(run.body))

    def smaller(self, run: PreparedRun) -> PreparedRun:
        """See the port. What cannot be made one by one stays as it is."""
        return split(run) if isinstance(run, ComfyRun) else run

    # the run

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> ComfyAnswer:
        """See the port. The deadline starts when the graph begins to run."""
        if not isinstance(run, ComfyRun):
            raise TypeError(f"{type(run).__name__} was not prepared by a ComfyUI engine")
        current = _Current(run)
        with self._run_lock:
            self._current = current
        url, headers = self._client.socket_address(self._client_id)
        socket = EventSocket(url, headers, clock=self._clock, sleep=self._sleep)
        try:
            self._make_way(current, deadline_s)
            socket.open()
            with self._run_lock:
                if current.is_interrupted:
                    raise Interrupted
                current.is_posted = True
            track = self._post(run)
            current.track = track
            if on_sent is not None:
                on_sent(None)
            entry = self._await_end(current, track, socket, deadline_s)
        finally:
            socket.close()
            with self._run_lock:
                self._current = None
        if current.is_interrupted:
            raise Interrupted
        return self._judged(run, entry)

    def interrupt(self, run: PreparedRun) -> bool:
        """See the port. From now on whatever the run brings is no result, even if the engine did not hear of it."""
        with self._run_lock:
            current = self._current
            if current is None or current.run is not run:
                return False
            current.is_interrupted = True
            # Before the engine has named the prompt there is nothing to end; the engine's thread sees to it then.
            return current.track is None or self._watch.stop(current.track.prompt_id)

    # after failures

    def free_memory(self) -> None:
        """See the port. The log tells what there was before: the engine frees when it comes to it."""
        self._loaded = None
        devices = self._client.system_stats().get("devices")
        self._client.free(models=True)
        free = [one.get("vram_free") for one in devices if isinstance(one, dict)] if isinstance(devices, list) else []
        log.info("engine_memory_freed", engine=self.name, free_before_bytes=free[0] if free else None)

    def golden(self, *, deadline_s: float) -> None:
        """See the port. With a checkpoint that has rendered here before, the GPU is proved too."""
        task = golden(uuid.uuid4().int & 0xFFFFFFFF, self._proven)
        try:
            self.generate(self.prepare(task, seed_key="golden"), deadline_s=deadline_s).output()
        except (EngineDown, Interrupted):
            raise
        except SchedulerError as error:
            raise Fatal(f"even a tiny known graph failed: {error}", engine=getattr(error, "engine", None)) from error

    def restart(self) -> bool:
        """Run the configured restart command; return whether it ended well. At most once in ten minutes."""
        if not self._restart_command.run(self.name):
            return False
        self._forget()
        self._may_be_busy = True
        return True

    # inside

    def _make_way(self, current: _Current, deadline_s: float) -> None:
        """End what may be left of ours, and drop a cache that names files which are gone."""
        if self._may_be_busy:
            self._watch.clear(within_s=deadline_s, is_interrupted=lambda: current.is_interrupted)
            self._may_be_busy = False
        if self._cache_is_stale:
            self._client.free(models=False)
            self._cache_is_stale = False

    def _post(self, run: ComfyRun) -> Track:
        """Send the graph once; return what follows its events."""
        self._loaded = run.checkpoint
        try:
            response = self._client.prompt(run.body)
            said = response.read(MAX_ANSWER_BYTES) or b""
        except AnswerTimedOut:
            raise self._lost(EngineLost(f"the engine took no graph within {PROMPT_TIMEOUT_S:g} s")) from None
        except EngineLost as error:
            raise self._lost(error) from error.__cause__
        except EngineDown:
            self._forget()
            raise
        if response.status != 200:
            raise self._note(refused(response.status, said, at=run.at, uploads=run.uploads))
        prompt_id, node_errors = taken(said)
        if prompt_id is None:
            raise self._lost(EngineLost("the engine took the graph and did not say under which id"))
        if (refusal := partly_refused(node_errors, at=run.at)) is not None:
            self._may_be_busy = self._watch.has_gone(prompt_id, within_s=INTERRUPT_GRACE_S) is None
            raise refusal
        return Track(prompt_id, run.graph)

    def _await_end(self, current: _Current, track: Track, socket: EventSocket, deadline_s: float) -> Mapping[str, Any]:
        try:
            return self._watch.await_end(
                track, socket, deadline_s=deadline_s, is_interrupted=lambda: current.is_interrupted
            )
        except Overdue:
            return self._overdue(current, track, deadline_s)
        except EngineLost as error:
            self._lost(error)
            if current.is_interrupted:
                raise Interrupted from None
            raise

    def _overdue(self, current: _Current, track: Track, deadline_s: float) -> Mapping[str, Any]:
        """End a run past its deadline; return its entry if it was done all the same. Raises what became of it."""
        ran = f"it ran longer than task_deadline_s ({deadline_s:g} s)"
        seen = self._watch.has_gone(track.prompt_id, within_s=INTERRUPT_GRACE_S)
        if seen is None:
            self._may_be_busy = True
            self._forget()
            raise EngineHung(f"{ran}, and the engine did not stop {INTERRUPT_GRACE_S:g} s after an interrupt")
        if current.is_interrupted:
            raise Interrupted
        if seen.place is Place.ENDED and seen.entry is not None and is_success(seen.entry):
            return seen.entry
        raise DeadlineExceeded(f"{ran} and was interrupted")

    def _judged(self, run: ComfyRun, entry: Mapping[str, Any]) -> ComfyAnswer:
        if not is_success(entry):
            status = entry.get("status")
            raise self._note(failed(status.get("messages") if isinstance(status, dict) else None, at=run.at))
        self._proven = provable(run.graph) or self._proven
        return ComfyAnswer(self._client, run, entry, max_pixels=self._max_pixels, doubt=self._doubt_cache)

    def _note(self, error: SchedulerError) -> SchedulerError:
        """Take in what an error says of the engine, and return it."""
        if isinstance(error, EngineDown):
            self._forget()
        elif isinstance(error, EngineLost):
            self._lost(error)
        elif isinstance(error, (Fatal, OutOfMemory)):
            self._loaded = None
        return error

    def _lost(self, error: EngineLost) -> EngineLost:
        """Take in that the engine died, or may have a prompt that we know nothing of."""
        self._forget()
        self._may_be_busy = True
        return error

    def _doubt_cache(self) -> None:
        self._cache_is_stale = True

    def _forget(self) -> None:
        self._is_current = False
        self._loaded = None
        self._pictures.expire()
