"""What the server does now, as `/progress` shows it: one set of flags and counters for everybody's jobs."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

FINISHED_KEPT = 16
SHOWN_FROM_STEP = 10


class FifoLock:
    """A lock that is given to those who wait in the order in which they came."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._gates: deque[threading.Lock] = deque()
        self._held = False

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self._gates)

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        gate.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._guard:
            if self._gates:
                self._gates.popleft().release()
            else:
                self._held = False


class State:
    """The job that runs, if any, and what was asked of it.

    `job_count` is -1 while a job prepares; when none runs it is 0, and the other counters are stale. `interrupted`
    stays true until the next job begins: the only sign that the last one was cut short.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = 0.0
        self.skipped = False
        self.interrupted = False
        self.job = ""
        self.job_count = 0
        self.job_no = 0
        self.job_timestamp = "0"
        self.sampling_step = 0
        self.sampling_steps = 0
        self.current_image: Callable[[], str] | None = None
        """Makes the picture in the making, in base64; None while there is none to show."""

    def begin(self, job: str) -> None:
        """Start a job: flags that were set for the one before do not touch it."""
        self.sampling_step = 0
        self._began_s = self._clock()
        self.job_count = -1
        self.job_no = 0
        self.job_timestamp = time.strftime("%Y%m%d%H%M%S")
        self.skipped = False
        self.interrupted = False
        self.job = job

    def next_job(self) -> None:
        """Count one pass as done."""
        self.job_no += 1
        self.sampling_step = 0

    def end(self) -> None:
        """Be idle; everything but the job's name and count stays as it was."""
        self.job = ""
        self.job_count = 0
        self.current_image = None

    def fraction(self) -> float:
        """Return how far the job is, 0..1."""
        count, steps = self.job_count, self.sampling_steps
        if count <= 0:
            return 0.0
        done = self.job_no / count
        if steps > 0:
            done += self.sampling_step / steps / count
        return min(1.0, done)

    def elapsed_s(self) -> float:
        """Return how long the job has been at it."""
        return self._clock() - self._began_s

    def snapshot(self, *, with_picture: bool = True) -> dict[str, Any]:
        """Return what GET progress answers. The remaining time is wild until some steps are done.

        A picture is shown from the tenth step on, as the WebUI does unless it is told otherwise.
        """
        picture = self.current_image if with_picture and self.sampling_step >= SHOWN_FROM_STEP else None
        progress, eta_s = 0.0, 0.0
        if self.job_count != 0:
            progress = min(1.0, 0.01 + self.fraction())
            eta_s = self.elapsed_s() / progress - self.elapsed_s()
        return {
            "progress": progress,
            "eta_relative": eta_s,
            "state": {
                "skipped": self.skipped,
                "interrupted": self.interrupted,
                "stopping_generation": False,
                "job": self.job,
                "job_count": self.job_count,
                "job_timestamp": self.job_timestamp,
                "job_no": self.job_no,
                "sampling_step": self.sampling_step,
                "sampling_steps": self.sampling_steps,
            },
            "current_image": picture() if picture else None,
            "textinfo": None,
        }


class TaskBook:
    """Which request ids wait, run, and are done: what the UI's own progress route tells."""

    def __init__(self) -> None:
        self._pending: dict[str, None] = {}
        self._finished: deque[str] = deque(maxlen=FINISHED_KEPT)
        self._current: str | None = None
        self._guard = threading.Lock()

    def queue(self, task_id: str) -> None:
        """Take in a request that waits for its turn."""
        with self._guard:
            self._pending[task_id] = None

    def start(self, task_id: str) -> None:
        """Its turn has come."""
        with self._guard:
            self._pending.pop(task_id, None)
            self._current = task_id

    def finish(self, task_id: str) -> None:
        """It is done, well or not."""
        with self._guard:
            self._current = None
            self._finished.append(task_id)

    def pending(self) -> dict[str, Any]:
        """Return what GET /internal/pending-tasks answers."""
        with self._guard:
            return {"size": len(self._pending), "tasks": list(self._pending)}

    def progress(self, task_id: str | None, state: State) -> dict[str, Any]:
        """Return what POST /internal/progress answers for one id."""
        with self._guard:
            waiting = list(self._pending)
            active = task_id is not None and task_id == self._current
            answer: dict[str, Any] = {
                "active": active,
                "queued": task_id in waiting,
                "completed": task_id in self._finished,
                "progress": None,
                "eta": None,
                "live_preview": None,
                "id_live_preview": -1,
                "textinfo": None,
            }
        if active:
            done = state.fraction()
            answer["progress"] = done
            answer["eta"] = state.elapsed_s() / done - state.elapsed_s() if done > 0 else None
        elif task_id in waiting:
            answer["textinfo"] = f"In queue: {waiting.index(task_id) + 1}/{len(waiting)}"
        else:
            answer["textinfo"] = "Waiting..."
        return answer
