"""The prepare loop of one engine: claims and encodes the next task while the present one renders."""

from __future__ import annotations

from dataclasses import replace

import structlog

from scheduler.domain.errors import Counts, EngineDown, Interrupted, SchedulerError, Transient
from scheduler.domain.ports import Clock
from scheduler.domain.surprises import Surprises
from scheduler.held import DEEPEN_S, Held, HeldTasks, State
from scheduler.held_messages import HeldMessages
from scheduler.loops.byte_budget import ByteBudget
from scheduler.loops.lane import Lane
from scheduler.stop import StopSignal
from scheduler.task_processor import TaskProcessor

log = structlog.get_logger()
MOST_BLAMED = 3
"""Tasks in a row that cannot be prepared although the engine answers; beyond them it is not the tasks."""
AGAIN_S = 5.0
MAX_UNSTARTED_S = 600.0
"""What is held and not started for so long goes back, for a host whose engine works."""


class PrepareLoop:
    """Keeps the next task claimed and encoded for its engine; more than one only where claiming is the slower part.

    Several threads may run it for one engine.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        processor: TaskProcessor,
        messages: HeldMessages,
        held: HeldTasks,
        budget: ByteBudget,
        clock: Clock,
        stop: StopSignal,
    ) -> None:
        self._lane = lane
        self._processor = processor
        self._messages = messages
        self._held = held
        self._budget = budget
        self._clock = clock
        self._stop = stop
        self._surprises = Surprises()
        self._blamed: set[str] = set()

    def run(self) -> None:
        """Prepare until the stop."""
        while not self._stop.is_set():
            self.cycle()

    def cycle(self) -> None:
        """Prepare one task if the engine has room for it and one waits; else wait for that, shortly."""
        seen = self._held.choice.version
        if (unwanted := self._lane.withdraw_unwanted()) is not None:
            # The engine's thread would see to it too, but only after the present render.
            self._processor.end(unwanted, Interrupted())
            self._budget.release(unwanted)
            return
        if (stale := self._lane.withdraw_stale(self._clock.monotonic() - MAX_UNSTARTED_S)) is not None:
            self._processor.end(stale, EngineDown("it could not be started for ten minutes"))
            self._budget.release(stale)
            return
        held = self._lane.choose()
        if held is None:
            self._messages.return_unstarted(older_than_s=MAX_UNSTARTED_S, reason="unstarted")
            self._held.choice.wait(seen, DEEPEN_S)
        elif self._prepare_or_give_back(held):
            self._lane.offer(held)
        else:
            self._lane.leave(held)
            with self._held.lock:
                self._held.room.signal()  # what was taken for work is none: there is room for other

    def _prepare_or_give_back(self, held: Held) -> bool:
        """Prepare; a surprise, which is a fault of ours that this task brings out, must not end the worker."""
        try:
            is_prepared = self._prepare(held)
        except Exception:
            if self._surprises.add(held.task.task_id):
                raise
            log.exception("prepare_failed", task_id=held.task.task_id)
            self._processor.surprised(held)
            return False
        self._surprises.none()
        return is_prepared

    def _see_who_is_to_blame(self, held: Held, error: EngineDown) -> None:
        """Wait for an engine that is away; one that answers otherwise must not wait for what
        it cannot do for a task.
        """
        # When it cannot for task after task, it is the engine.
        self._blamed.add(held.task.task_id)
        try:
            self._lane.engine.probe()
            is_tasks = len(self._blamed) <= MOST_BLAMED
        except EngineDown:
            is_tasks = False
        if is_tasks:
            self._processor.end(held, Transient(error.message, counts=Counts.TRY))
        elif self._lane.running is None:
            self._lane.set_ready(ready=False, why=error.message)
            self._processor.unclaim(held)
        else:  # it works, and nobody would look again before the end of its run
            self._processor.unclaim(held)
            self._stop.wait(AGAIN_S)

    def _prepare(self, held: Held) -> bool:
        """Claim and encode; False when the task went another way."""
        started_s = self._clock.monotonic()
        if not self._processor.claim(held):
            return False
        claim = held.claim
        if claim is None:
            raise RuntimeError(f"task {held.task.task_id} was claimed without a claim")
        try:
            self._processor.require_runtime(held)
            run = self._lane.engine.prepare(held.task, seed_key=f"{claim.task_id}:{claim.run_no}")
            held.run = run = replace(run, resume_job_id=claim.job_id) if claim.job_id else run
        except EngineDown as error:
            self._see_who_is_to_blame(held, error)
            return False
        except SchedulerError as error:
            self._processor.end(held, error)
            return False
        self._blamed.clear()
        took_s = self._clock.monotonic() - started_s
        held.prepare_ms = round(took_s * 1000)
        with self._held.lock:
            self._lane.pace.learn_claim(took_s)
        self._held.move(held, State.READY, "waiting for memory")  # its claim has to be renewed meanwhile
        while not self._budget.reserve(run.estimate_bytes, 0.5):
            if self._stop.is_set() or held.is_cancelled or held.is_lost:
                self._processor.end(held, Interrupted())
                return False
        held.reserved_bytes = run.estimate_bytes
        return True
