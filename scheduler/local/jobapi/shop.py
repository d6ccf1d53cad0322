"""The stand-in's jobs: queued, worked at one after the other, remembered for as long as the process lives."""

from __future__ import annotations

import os
import queue
import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from scheduler.local.jobapi.bucket import Bucket, JobFailed
from scheduler.local.jobapi.faults import Faults, JobFault
from scheduler.local.jobapi.forms import IMAGES
from scheduler.local.serving.diary import Diary
from scheduler.local.serving.faults import Fault
from scheduler.local.standin import painter

SIZE = (512, 512)
INPUT_SHARE = 0.35
"""How much of the first picture shows through the result."""
WORDS = {
    JobFault.FAIL: "Prompt execution ended without outputs",
    JobFault.OOM: "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    JobFault.FATAL: "RuntimeError: CUDA error: an illegal memory access was encountered",
}
"""What a job that is made to fail says."""


@dataclass(slots=True)
class Job:
    """One request and what became of it; changed only by the thread that works at it."""

    job_id: str
    kind: str
    values: Mapping[str, Any]
    status: str = "pending"
    result_s3_uri: str | None = None
    error: str | None = None

    @property
    def prompt(self) -> str:
        """The words by which faults and counts know it."""
        return str(self.values["prompt"])

    def answer(self) -> dict[str, Any]:
        """Return what its client is told."""
        return {
            "job_id": self.job_id,
            "status": self.status,
            "result_s3_uri": self.result_s3_uri,
            "error": self.error,
        }


class Shop:
    """Takes requests from any thread; one thread works at them.

    `pause` waits for a number of seconds; `die` ends the process. Both are passed in so that tests own them.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        seconds_per_step: float,
        pause: Callable[[float], object] | None = None,
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self.faults = Faults()
        self.diary = Diary()
        self._bucket = bucket
        self._seconds_per_step = seconds_per_step
        self._pause = pause or threading.Event().wait
        self._die = die
        self._dice = random.Random()
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def submit(self, kind: str, values: Mapping[str, Any]) -> Job:
        """Take a request in and return its job."""
        job = Job(str(uuid.uuid4()), kind, values)
        self._jobs[job.job_id] = job
        self._waiting.put(job)
        return job

    def find(self, job_id: str) -> Job | None:
        """Return a job by its id, None for an unknown one."""
        return self._jobs.get(job_id)

    def stats(self) -> dict[str, Any]:
        """Return what was done so far and what is to go wrong yet."""
        jobs = list(self._jobs.values())
        told = {"jobs": dict(Counter(job.status for job in jobs)), "faults": self.faults.left()}
        return self.diary.facts() | told

    def run(self) -> None:
        """Work for ever."""
        while True:
            self.work(self._waiting.get())

    def work(self, job: Job) -> None:
        """Take one job to its end."""
        fault = self.faults.of_job(job.prompt)
        job.status = "uploading" if fault and fault.kind is JobFault.STRANGE else "processing"
        self.diary.begun(job.prompt)
        try:
            with self.diary.busy("render", job.prompt):
                picture = self._rendered(job, fault)
            if not (fault and fault.kind is JobFault.NO_RESULT):
                job.result_s3_uri = self._bucket.store(job.job_id, picture)
        except JobFailed as error:
            job.error, job.status = str(error), "failed"
        else:
            job.status = "completed"
            self.diary.whole(job.prompt)

    def _rendered(self, job: Job, fault: Fault | None) -> Image.Image:
        sources = [self._bucket.fetch(address) for name in IMAGES if (address := job.values.get(name))]
        slower = fault.factor if fault and fault.kind is JobFault.SLOW else 1.0
        steps = max(0, int(job.values["steps"]))
        for done in range(steps + 1):
            self._strike(job, fault, done, steps)
            if done < steps:
                self._pause(self._seconds_per_step * slower)
        seed = job.values["seed"]
        seed = self._dice.randrange(1 << 32) if seed is None or seed < 0 else seed
        picture = painter.paint(job.prompt, seed, job.kind, SIZE)
        picture = Image.blend(picture, sources[0].resize(SIZE), INPUT_SHARE)
        painter.caption(picture, job.prompt, f"seed {seed} · {job.kind}")
        return picture

    def _strike(self, job: Job, fault: Fault | None, done: int, steps: int) -> None:
        """Carry out a fault that ends or stops a job, once `done` steps have come to its moment. Raises JobFailed."""
        if fault is None or done != min(fault.after_steps, steps):
            return
        kind = JobFault(fault.kind)
        if kind in WORDS:
            raise JobFailed(WORDS[kind])
        match kind:
            case JobFault.LOSE:
                del self._jobs[job.job_id]
                raise JobFailed("forgotten")
            case JobFault.HANG:
                self.faults.hang(fault)
            case JobFault.CRASH:
                self._die(1)
            case _:
                return
