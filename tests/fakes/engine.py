"""An engine in memory: it paints at once, or when it is let."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable
from typing import Any

from PIL import Image

from fakes.clock import FakeClock
from fakes.faults import Faults
from scheduler.domain.errors import DeadlineExceeded, EngineDown, Interrupted, Rejected
from scheduler.domain.pace import Needs
from scheduler.domain.ports import Output, PreparedRun, Preview
from scheduler.domain.task import EngineImage, Progress, Task, TaskType
from scheduler.engines import sdwebui_payload

SEED_RANGE = 2**31
PATIENCE_S = 30.0
"""A held render that nobody lets go of ends, loudly, so that a broken test does not hang."""


class FakeAnswer:
    """What a render returned."""

    def __init__(self, output: Output, faults: Faults) -> None:
        self._output = output
        self._faults = faults

    def output(self) -> Output:
        with self._faults.around("output"):
            return self._output


class FakeEngine:
    """The `Engine` port; a picture follows from the request's body alone, so that a re-run gives the same bytes.

    `fail_next(n, error, on="generate")` makes renders fail that the engine took, ``connect`` those it never took;
    likewise ``probe``, ``prepare``, ``output``, ``golden`` and ``free_memory``. After `hold` renders wait until
    `let_go`. Each render takes `render_s` of the clock.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        name: str = "fake",
        runtimes: frozenset[str] = frozenset({"sdwebui", "legacy"}),
        task_types: frozenset[TaskType] = frozenset(TaskType) - {TaskType.PIPELINE},
        titles: tuple[str, ...] = ("first.safetensors [11aa]", "second.safetensors [22bb]"),
        render_s: float = 1.0,
        can_restart: bool = False,
    ) -> None:
        self._clock = clock
        self._titles = titles
        self._can_restart = can_restart
        self._loaded = titles[0]
        self._changed = threading.Condition()
        self._running: PreparedRun | None = None
        self._interrupted: PreparedRun | None = None
        self._is_held = False
        self.name = name
        self.runtimes = runtimes
        self.task_types = task_types
        self.preview_now: Preview | None = Preview(b"preview", "image/jpeg")
        self.render_s = render_s
        self.waits_s = 0.0
        self.is_up = True
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.posts: list[PreparedRun] = []
        self.switches = 0
        self.restarts = 0

    def hold(self) -> None:
        """Make renders wait."""
        with self._changed:
            self._is_held = True

    def let_go(self) -> None:
        """Let the waiting render end, and all that follow."""
        with self._changed:
            self._is_held = False
            self._changed.notify_all()

    def wait_until_running(self, timeout_s: float = 5.0) -> PreparedRun:
        """Return the run that renders now, waiting for it to begin."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._running is not None, timeout_s) or self._running is None:
                raise TimeoutError(f"nothing renders after {timeout_s} s")
            return self._running

    def can_run(self, task: Task) -> bool:
        return task.task_type in self.task_types

    def needs(self, task: Task) -> Needs:
        return sdwebui_payload.needs(task)

    def probe(self) -> None:
        with self.faults.around("probe"):
            self._require_up()

    def _require_up(self) -> None:
        if not self.is_up:
            raise EngineDown(f"{self.name} refused the connection")

    def title(self, checkpoint: str | None) -> str | None:
        if checkpoint is None:
            return self._titles[0]
        return next((title for title in self._titles if title.startswith(checkpoint)), checkpoint)

    def loaded(self) -> str | None:
        return self._loaded if self.is_up else None

    def prepare(self, task: Task, *, seed_key: str) -> PreparedRun:
        with self.faults.around("prepare"):
            steps = task.payload.get("steps", 20)
            if not isinstance(steps, int) or steps < 1:
                raise Rejected(f"steps is {steps!r}; it must be at least 1", field="payload.steps")
            seed = task.payload.get("seed", -1)
            if seed == -1:
                seed = int.from_bytes(hashlib.sha256(seed_key.encode()).digest()) % SEED_RANGE
            override = task.payload.get("override_settings") or {}
            count = task.payload.get("batch_size", 1) * task.payload.get("n_iter", 1)
            return PreparedRun(
                task=task,
                path=f"/sdapi/v1/{task.task_type.value}",
                body=json.dumps(dict(task.payload) | {"seed": seed}).encode(),
                image_count=count,
                checkpoint=self.title(override.get("sd_model_checkpoint") or task.checkpoint),
                sampler=task.payload.get("sampler_name"),
                estimate_bytes=count * 1000,
            )

    def smaller(self, run: PreparedRun) -> PreparedRun:
        body: dict[str, Any] = json.loads(run.body)
        body |= {"batch_size": 1, "n_iter": run.image_count}
        return PreparedRun(
            task=run.task,
            path=run.path,
            body=json.dumps(body).encode(),
            image_count=run.image_count,
            checkpoint=run.checkpoint,
            sampler=run.sampler,
            estimate_bytes=run.estimate_bytes,
            warnings=(*run.warnings, "rendered one at a time"),
        )

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> FakeAnswer:
        with self.faults.around("connect"):
            self._require_up()
        with self._changed:
            self._running, self._interrupted = run, None
            self.posts.append(run)
            self._changed.notify_all()
        try:
            if on_sent is not None:
                on_sent(None)
            with self.faults.around("generate"):
                self._render(run, deadline_s)
                return FakeAnswer(_paint(run), self.faults)
        finally:
            with self._changed:
                self._running = None
                self._changed.notify_all()

    def _render(self, run: PreparedRun, deadline_s: float) -> None:
        if run.checkpoint is not None and run.checkpoint != self._loaded:
            self._loaded = run.checkpoint
            self.switches += 1
        if self.render_s > deadline_s:
            self._clock.advance(deadline_s)
            raise DeadlineExceeded(f"it ran for {deadline_s:g} s and was interrupted")
        with self._changed:
            if not self._changed.wait_for(lambda: not self._is_held or self._interrupted is run, PATIENCE_S):
                raise TimeoutError("a held render was never let go")
            if self._interrupted is run:
                raise Interrupted
        self._clock.advance(self.render_s)

    def waited_s(self) -> float:
        return self.waits_s

    def interrupt(self, run: PreparedRun) -> bool:
        with self._changed:
            if self._running is not run:
                return False
            self._interrupted = run
            self._changed.notify_all()
            return True

    def progress(self) -> Progress | None:
        with self._changed:
            return None if self._running is None else Progress(percent=50, step=10, eta_s=round(self.render_s / 2))

    def preview(self) -> Preview | None:
        with self._changed:
            return None if self._running is None else self.preview_now

    def free_memory(self) -> None:
        with self.faults.around("free_memory"):
            self._require_up()

    def golden(self, *, deadline_s: float) -> None:
        with self.faults.around("golden"):
            self._require_up()

    def restart(self) -> bool:
        if not self._can_restart:
            return False
        self.restarts += 1
        self.is_up = True
        return True


def _paint(run: PreparedRun) -> Output:
    """Return as many pictures as asked, each of the colour that its seed and the prompt give it."""
    body = json.loads(run.body)
    images = []
    for index in range(run.image_count):
        seed = body["seed"] + index
        colour = hashlib.sha256(f"{body.get('prompt', '')}/{seed}".encode()).digest()
        drawn = io.BytesIO()
        Image.new("RGB", (8, 8), (colour[0], colour[1], colour[2])).save(drawn, "PNG")
        images.append(
            EngineImage(data=drawn.getvalue(), media_type="image/png", extension=".png", width=8, height=8, seed=seed)
        )
    return Output(images=tuple(images), checkpoint=run.checkpoint, sampler=run.sampler, warnings=run.warnings)
