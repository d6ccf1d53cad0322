"""The stand-in's engine room: one job at a time behind one lock, and steps that take time."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from scheduler.local.serving.diary import Diary
from scheduler.local.serving.faults import Fault, FaultBook
from scheduler.local.serving.pace import Pace
from scheduler.local.standin import pictures
from scheduler.local.standin.checkpoints import Shelf
from scheduler.local.standin.faults import LASTING, FaultKind
from scheduler.local.standin.frames import Frame, finished, grid
from scheduler.local.standin.job import Job, Sources, out_of_memory, plan
from scheduler.local.standin.refusals import EngineError
from scheduler.local.standin.settings import CHECKPOINT
from scheduler.local.standin.state import FifoLock, State, TaskBook
from scheduler.local.standin.weights import Weights

EXTRAS_STEPS = 4
"""How many steps' time one picture of the extras routes takes."""


class Engine:
    """Everything that the routes ask for; each public method may be called from any thread.

    `pause` waits for a number of seconds; `die` ends the process. Both are passed in so that tests own them.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        pace: Pace,
        *,
        pause: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self._pause = pause or threading.Event().wait
        self.state = State(clock)
        self.tasks = TaskBook()
        self.diary = Diary(clock)
        self.faults = FaultBook(FaultKind, LASTING)
        shelf = Shelf(checkpoints)
        self.weights = Weights(shelf, self.faults, self.diary, switch_seconds=pace.switch_seconds, pause=self._pause)
        self._lock = FifoLock()
        self._seconds_per_step = pace.seconds_per_step
        self._clock = clock
        self._die = die
        self._dice = random.Random()

    # what waits for its turn

    def generate(self, kind: str, values: dict[str, Any], mask: Image.Image | None = None) -> dict[str, Any]:
        """Render one request, after those that came before it; return the answer. Raises EngineError."""
        task_id = values["force_task_id"] or f"task({kind}-{uuid.uuid4().hex[:12]})"
        self.tasks.queue(task_id)
        with self._lock:
            self.state.begin(f"scripts_{kind}")
            self.tasks.start(task_id)
            try:
                fault = self.faults.take(values["prompt"] or "", values["batch_size"] or 1)
                form = self._samples_format()
                sources = Sources(images=tuple(map(pictures.decode, values.get("init_images") or ())), mask=mask)
                overrides, restore = values["override_settings"] or {}, values["override_settings_restore_afterwards"]
                with self.weights.overridden(overrides, restore=bool(restore)):
                    job = self._planned(values, sources, fault)
                    frames = self._render(job, fault, form)
                timestamp = self.state.job_timestamp
            finally:
                self.state.end()
                self.tasks.finish(task_id)
        return self._answer(job, frames, fault, timestamp, form)

    def extras(self, values: Mapping[str, Any], encoded: Sequence[str]) -> tuple[list[str], str]:
        """Enlarge pictures; return them encoded, and the line of HTML about them. Raises EngineError."""
        frames: list[Frame] = []
        with self._lock:
            self.state.begin("extras")
            try:
                fault = self.faults.take("", 1)
                sources = [pictures.decode(entry) for entry in encoded]
                self.state.job_count = max(1, len(sources))
                with self.diary.busy("extras", ""):
                    for source in sources:
                        if self.state.interrupted:
                            break
                        frames.append(Frame(self._enlarged(source, values, fault), ""))
            finally:
                self.state.end()
        form = self._samples_format()
        images = [frame.base64(form) for frame in _marred(frames, fault, form)]
        return images, f"<p>Postprocess upscaler: {values['upscaler_1']}</p>"

    def set_options(self, options: Mapping[str, Any]) -> None:
        """Change settings; a checkpoint is loaded before this returns. Raises EngineError."""
        settings, wanted = self.weights.settings, options.get(CHECKPOINT)
        if wanted is not None and self.weights.shelf.find(wanted) is None:
            raise EngineError("RuntimeError", f"model {wanted!r} not found")
        for key, value in options.items():
            before = settings.get(key)
            settings.set(key, value)
            if key == CHECKPOINT and value != before:
                with self._lock:
                    self.weights.load()

    def refresh(self) -> None:
        """Look for new checkpoints, after the running job."""
        with self._lock:
            self.weights.shelf.refresh()

    def reload(self) -> None:
        """Have the chosen checkpoint's weights loaded again."""
        with self._lock:
            self.weights.load()

    # control, outside the API

    def heal(self) -> None:
        """Forget all faults, also the harm that a broken checkpoint did."""
        self.weights.mend()
        self.faults.clear()

    def stats(self) -> dict[str, Any]:
        """Return what was done so far and what is to go wrong yet."""
        shelf = self.weights.shelf
        return self.diary.facts() | {
            "faults": self.faults.left(),
            "waiting": self._lock.waiting,
            "running": self.state.job,
            "loaded": shelf.title(shelf.loaded) if shelf.loaded else None,
        }

    # rendering

    def _planned(self, values: Mapping[str, Any], sources: Sources, fault: Fault | None) -> Job:
        used = self.weights.used()
        clip_skip = int(self.weights.settings.get("CLIP_stop_at_last_layers"))
        job = plan(values, sources, used, clip_skip=clip_skip, dice=self._dice)
        if fault and fault.kind is FaultKind.WRONG_MODEL:
            return replace(job, checkpoint=self.weights.shelf.other(used))
        return job

    def _render(self, job: Job, fault: Fault | None, form: str) -> list[Frame]:
        self.state.job_count = job.batches * len(job.stages)
        self.diary.begun(job.prompt)
        frames: list[Frame] = []
        with self.diary.busy("render", job.prompt):
            for batch in range(job.batches):
                self.state.skipped = False
                if self.state.interrupted:
                    break
                if job.batches > 1:
                    self.state.job = f"Batch {batch + 1} out of {job.batches}"
                frames += self._pass(job, batch, fault, form)
        if not self.state.interrupted:
            self.diary.whole(job.prompt)
        return frames

    def _pass(self, job: Job, batch: int, fault: Fault | None, form: str) -> list[Frame]:
        """Take one batch through all its steps; painting and encoding fall into the time that the steps take."""
        began_s, done, total = self._clock(), 0, sum(job.stages)
        indices = range(batch * job.batch_size, (batch + 1) * job.batch_size)
        frames = [finished(job, index, form) for index in indices]
        self.state.current_image = lambda: frames[0].half_done(done / total, job.seeds[indices[0]]).base64("jpeg")
        for steps in job.stages:
            self.state.sampling_steps, self.state.sampling_step = steps, 0
            while self.state.sampling_step < steps and not (self.state.interrupted or self.state.skipped):
                self._strike(fault, done, total, job)
                self._until(began_s + (done + 1) * self._step_s(fault))
                self.state.sampling_step += 1
                done += 1
            self._strike(fault, done, total, job)
            self.state.next_job()
        if done == total:
            return frames
        return [frame.half_done(done / total, job.seeds[index]) for index, frame in zip(indices, frames, strict=True)]

    def _answer(self, job: Job, frames: list[Frame], fault: Fault | None, timestamp: str, form: str) -> dict[str, Any]:
        """Put the answer together, as the real one does after the lock is free."""
        first_image = 0
        if job.values["save_images"] and self.weights.settings.get("return_grid") and len(frames) > 1:
            frames, first_image = [grid(frames), *frames], 1
        texts = [frame.infotext for frame in frames] or [job.infotext(0)]
        sent = _marred(frames, fault, form) if job.values["send_images"] else []
        return {
            "images": [frame.base64(form) for frame in sent],
            "parameters": _echo(job.values),
            "info": json.dumps(job.info(texts, timestamp, first_image)),
        }

    def _enlarged(self, source: Image.Image, values: Mapping[str, Any], fault: Fault | None) -> Image.Image:
        began_s = self._clock()
        large = pictures.upscaled(source, values)
        for step in range(EXTRAS_STEPS):
            self._strike(fault, step, EXTRAS_STEPS, None)
            self._until(began_s + (step + 1) * self._step_s(fault))
        self._strike(fault, EXTRAS_STEPS, EXTRAS_STEPS, None)
        self.state.next_job()
        return large

    def _samples_format(self) -> str:
        return str(self.weights.settings.get("samples_format"))

    def _step_s(self, fault: Fault | None) -> float:
        return self._seconds_per_step * (fault.factor if fault and fault.kind is FaultKind.SLOW else 1.0)

    def _until(self, at_s: float) -> None:
        left_s = at_s - self._clock()
        if left_s > 0:
            self._pause(left_s)

    def _strike(self, fault: Fault | None, done: int, total: int, job: Job | None) -> None:
        """Carry out a fault that ends or stops a render, once `done` steps have come to its moment."""
        if fault is None or done != min(fault.after_steps, total):
            return
        match fault.kind:
            case FaultKind.OOM:
                size, batch = (job.size, job.batch_size) if job else ((512, 512), 1)
                raise EngineError("OutOfMemoryError", out_of_memory(size, batch))
            case FaultKind.FATAL:
                raise EngineError("RuntimeError", "CUDA error: an illegal memory access was encountered")
            case FaultKind.CRASH:
                self._die(1)
            case FaultKind.HANG:
                self.faults.hang(fault)
            case _:
                return


def _marred(frames: list[Frame], fault: Fault | None, form: str) -> list[Frame]:
    """Return the frames with what a fault does to finished pictures."""
    match fault.kind if fault else None:
        case FaultKind.BLACK:
            return [frame.black() for frame in frames]
        case FaultKind.SHORT:
            return frames[:-1]
        case FaultKind.CORRUPT_IMAGE if frames:
            return [frames[0].corrupt(form), *frames[1:]]
        case _:
            return frames


def _echo(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request as the answer repeats it: without the pictures that came with it, unless asked for."""
    echoed = dict(values)
    if "init_images" in echoed and not echoed["include_init_images"]:
        echoed |= {"init_images": None, "mask": None}
    return echoed
