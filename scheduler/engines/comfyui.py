"""A ComfyUI engine behind the `Engine` port: prepares graphs for it, runs them one at a time, judges how they end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import structlog

from scheduler.domain.errors import (
    DeadlineExceeded,
    EngineBusy,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    OutOfMemory,
    Rejected,
    SchedulerError,
)
from scheduler.domain.pace import Needs
from scheduler.domain.ports import Clock, Inputs, PreparedRun, Preview
from scheduler.domain.routing import kind_for
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
from scheduler.engines.turn import INTERRUPT_GRACE_S, Slot, Turn, prove

log = structlog.get_logger()

MAX_ANSWER_BYTES = 1 << 20
_LEAST_ESTIMATE_BYTES = 16 << 20
"""What the results of a graph may take whose size it does not tell."""
_BYTES_PER_PIXEL = 4


class ComfyUiEngine:
    """One ComfyUI server.

    `client_id` is this scheduler's name with the engine: what is left there under it, by a process before this one
    too, is ended before the first prompt. It must be nobody else's. `sleep` is how waits pass where there are no
    events.
    """

    def __init__(
        self,
        name: str,
        client: ComfyClient,
        *,
        clock: Clock,
        max_pixels: int,
        inputs: Inputs,
        runtimes: frozenset[str],
        client_id: str,
        restart_command: Sequence[str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.runtimes = runtimes
        self._client = client
        self._clock = clock
        self._max_pixels = max_pixels
        self._client_id = client_id
        self._restart_command = RestartCommand(restart_command, clock)
        self._sleep = sleep
        self._pictures = Pictures(client, inputs, max_pixels=max_pixels)
        self._watch = Watch(client, self._client_id, clock, sleep)
        self._slot = Slot()
        self._waited_s = 0.0
        self._track: Track | None = None
        self._may_be_busy = True
        self._cache_is_stale = False
        self._checkpoints: tuple[str, ...] = ()
        self._is_current = False
        self._loaded: str | None = None
        self._proven: str | None = None

    def can_run(self, task: Task) -> bool:
        """See the port."""
        return kind_for(task) == "comfyui"

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
        track = self._track
        return track.progress(self._clock.monotonic()) if track else None

    def preview(self) -> Preview | None:
        """See the port. The engine sends them only if it was started with a preview method."""
        track = self._track
        return track.preview if track else None

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
        address = self._client.socket_address(self._client_id)
        with (
            self._slot.take(run) as turn,
            closing(EventSocket(address, clock=self._clock, sleep=self._sleep)) as socket,
        ):
            try:
                self._make_way(turn, deadline_s)
                socket.open()
                self._slot.begin(turn)
                self._track = track = self._post(run)
                if on_sent is not None:
                    on_sent(None)
                posted_s = self._clock.monotonic()
                try:
                    entry = self._await_end(turn, track, socket, deadline_s)
                finally:
                    began_s = self._clock.monotonic() if track.started_s is None else track.started_s
                    self._waited_s = max(0.0, began_s - posted_s)
            finally:
                self._track = None
        return self._judged(run, entry)

    def waited_s(self) -> float:
        """See the port."""
        return self._waited_s

    def interrupt(self, run: PreparedRun) -> bool:
        """See the port. From now on whatever the run brings is no result, even if the engine did not hear of it."""
        return self._slot.interrupt(run, self._send_interrupt)

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
        prove(self, task, deadline_s=deadline_s)

    def restart(self) -> bool:
        """Run the configured restart command; return whether it ended well. At most once in ten minutes."""
        if not self._restart_command.run(self.name):
            return False
        self._forget()
        self._may_be_busy = True
        return True

    # inside

    def _send_interrupt(self) -> bool:
        """End the prompt; before the engine has named it there is none, and the engine's thread sees to it then."""
        track = self._track
        return track is None or self._watch.stop(track.prompt_id)

    def _make_way(self, turn: Turn, deadline_s: float) -> None:
        """End what may be left of ours, and drop a cache that names files which are gone."""
        if self._may_be_busy:
            self._watch.clear(within_s=deadline_s, is_interrupted=turn.stopped.is_set)
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

    def _await_end(self, turn: Turn, track: Track, socket: EventSocket, deadline_s: float) -> Mapping[str, Any]:
        try:
            return self._watch.await_end(track, socket, deadline_s=deadline_s, is_interrupted=turn.stopped.is_set)
        except Overdue:
            return self._overdue(track, deadline_s)
        except EngineLost as error:
            self._lost(error)
            raise
        except EngineBusy:
            self._may_be_busy = True  # it may not have heard that ours is wanted no more
            raise

    def _overdue(self, track: Track, deadline_s: float) -> Mapping[str, Any]:
        """End a run past its deadline; return its entry if it was done all the same. Raises what became of it."""
        ran = f"it ran longer than task_deadline_s ({deadline_s:g} s)"
        seen = self._watch.has_gone(track.prompt_id, within_s=INTERRUPT_GRACE_S)
        if seen is None:
            self._may_be_busy = True
            self._forget()
            raise EngineHung(f"{ran}, and the engine did not stop {INTERRUPT_GRACE_S:g} s after an interrupt")
        if seen.place is Place.ENDED and seen.entry is not None and is_success(seen.entry):
            return seen.entry
        raise DeadlineExceeded(f"{ran} and was interrupted")

    def _judged(self, run: ComfyRun, entry: Mapping[str, Any]) -> ComfyAnswer:
        if not is_success(entry):
            status = entry.get("status")
            raise self._note(failed(status.get("messages") if isinstance(status, dict) else None, at=run.at))
        self._proven = provable(run.graph) or self._proven
        answer = ComfyAnswer(self._client, run, entry, max_pixels=self._max_pixels, doubt=self._doubt_cache)
        answer.secure()
        return answer

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
