"""The engine loop: does nothing but call its engine, one task after another, and passes on what comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

import structlog

from scheduler.domain.errors import (
    BadResult,
    EngineBusy,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    SchedulerError,
)
from scheduler.domain.ports import Answer, Clock, Output, PreparedRun
from scheduler.domain.surprises import Surprises
from scheduler.held import Held, HeldTasks, State
from scheduler.held_messages import HeldMessages
from scheduler.loops.lane import Lane
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.stop import StopSignal
from scheduler.task_processor import TaskProcessor
from scheduler.wire.json_body import shorten

log = structlog.get_logger()
FATALS_IN_A_ROW = 3
"""Of each kind: errors that the engine tells, and answers that turn out to be no pictures."""
SLOW_END_S = 10.0
"""A result that is not stored by then may not be for long."""
IDLE_PROBE_S = 5.0
FIRST_PROBE_S, MAX_PROBE_S = 0.5, 5.0
FIRST_SICK_PROBE_S, MAX_SICK_PROBE_S = 5.0, 60.0
"""A probe of a sick host is a golden task, so each waits twice as long as the one before."""

Outcome = Answer | SchedulerError


class _Watched:
    """An answer that tells, when somebody reads it, whether there were pictures in it."""

    def __init__(self, answer: Answer, verdicts: SimpleQueue[bool]) -> None:
        self._answer = answer
        self._verdicts = verdicts

    def output(self) -> Output:
        try:
            output = self._answer.output()
        except (BadResult, EngineLost):
            self._verdicts.put(False)
            raise
        self._verdicts.put(True)
        return output


class RenderLoop:
    """One engine's thread. Outcomes go into `outcomes`, None at the end."""

    def __init__(
        self,
        lane: Lane,
        *,
        processor: TaskProcessor,
        messages: HeldMessages,
        outages: Outages,
        held: HeldTasks,
        clock: Clock,
        metrics: Metrics,
        stop: StopSignal,
        lanes: Sequence[Lane],
        deadline_s: float,
        lease_s: float,
    ) -> None:
        self._lane = lane
        self._lanes = lanes
        self._lease_s = lease_s
        self._processor = processor
        self._messages = messages
        self._outages = outages
        self._held = held
        self._clock = clock
        self._metrics = metrics
        self._stop = stop
        self._deadline_s = deadline_s
        self._fatals = self._unreadable = 0
        self._verdicts: SimpleQueue[bool] = SimpleQueue()
        self._surprises = Surprises()
        self._probe_s = FIRST_PROBE_S
        self._sick_probe_s = FIRST_SICK_PROBE_S
        self._idle_since_s = clock.monotonic()
        self._probed_s = clock.monotonic()
        self._was_told = False
        self._unsettled: list[Callable[[], None]] = []
        self.outcomes: SimpleQueue[tuple[Held, Outcome] | None] = SimpleQueue()

    def run(self) -> None:
        """Render until the stop."""
        try:
            while not self._stop.is_set():
                self.cycle()
        finally:
            self._settle()
            self.outcomes.put(None)

    def cycle(self) -> None:
        """Bring the engine up, or render one task, or look after an idle engine."""
        self._take_in_verdicts()
        following = self._lane.peek()
        is_held_up = following is not None and self._is_held_up(following)
        if self._unsettled and (is_held_up or not self._lane.is_ready):
            self._settle()
        if following is not None and (following.is_lost or following.is_cancelled):
            self._dismiss()
        elif not self._lane.is_ready:
            self._await_engine()
        elif is_held_up:
            self._stop.wait(0.2)
        else:
            self._take_and_render()

    def _take_in_verdicts(self) -> None:
        """Hear what came of earlier answers: an engine that says 200 to everything would spend every task's runs."""
        while not self._verdicts.empty():
            self._unreadable = 0 if self._verdicts.get() else self._unreadable + 1
        if self._unreadable >= FATALS_IN_A_ROW and self._lane.is_ready:
            self._confirm()

    def _is_held_up(self, following: Held) -> bool:
        """Tell whether the next task must not begin yet.

        A finished result that cannot be stored is kept, and another beside it would be at risk too. It may be long
        before an AWS that says nothing counts as one that does not answer. And a claim that could not be renewed
        in time, by when its last renewal was sent, may be another's by now.
        """
        return (
            self._outages.trouble is not None
            or self._held.longest_end_s() > SLOW_END_S
            or self._clock.monotonic() - following.renewed_s > self._lease_s
        )

    def _dismiss(self) -> None:
        """Pass on unrun the next in line, which is another's by now or was cancelled; no engine is needed for that."""
        if (held := self._lane.withdraw_unwanted()) is not None:
            self._pass_on(held, Interrupted())

    def _decline(self, why: str) -> None:
        """Give back unrun what is in line."""
        while (held := self._lane.withdraw()) is not None:
            self._pass_on(held, EngineDown(why))

    def _take_and_render(self) -> None:
        seen = self._held.offered.version
        held = self._lane.take()
        if held is None and self._unsettled:
            self._settle()
        elif held is None:
            self._held.offered.wait(seen, 0.5)
            if self._clock.monotonic() - max(self._idle_since_s, self._probed_s) > IDLE_PROBE_S:
                self._probe()
        elif held.is_lost or held.is_cancelled or self._stop.is_set():
            self._pass_on(held, Interrupted())
        else:
            self._render(held)

    def _render(self, held: Held) -> None:
        outcome = self._generate(held)
        if isinstance(outcome, EngineDown):
            self._lane.put_back(held)
            self._down(outcome.message)
            return
        self._pass_on(held, outcome)
        if isinstance(outcome, Fatal):
            self._fatals += 1
            if self._fatals >= FATALS_IN_A_ROW:
                self._confirm()
        elif isinstance(outcome, EngineHung):
            self._restart(outcome.message)
        elif not isinstance(outcome, SchedulerError):
            self._fatals = 0

    def _generate(self, held: Held) -> Outcome:
        """Run one task, out-of-memory included."""
        run, engine = held.run, self._lane.engine
        if run is None:
            raise RuntimeError(f"task {held.task.task_id} reached the engine unprepared")
        switching = engine.loaded() not in {None, run.checkpoint or engine.title(None)}
        started_s = self._clock.monotonic()
        held.queued_ms = round(max(0.0, self._clock.now() - held.sent_at_s) * 1000)
        starved_s = max(0.0, min(started_s - self._idle_since_s, held.queued_ms / 1000))
        outcome: Outcome
        try:
            try:
                answer = engine.generate(run, deadline_s=self._deadline_s, on_sent=partial(self._sent, held))
            except OutOfMemory as error:
                log.warning("out_of_memory", task_id=held.task.task_id, engine=engine.name, said=error.engine)
                answer = self._again_smaller(held, run)
        except SchedulerError as error:
            outcome = error
        except Exception as error:
            if self._surprises.add(held.task.task_id):
                raise
            log.exception("answer_unreadable")
            outcome = BadResult(f"the worker failed on the engine's answer: {shorten(error, 300)}")
        else:
            self._surprises.none()
            outcome = _Watched(answer, self._verdicts)
        ended_s = held.rendered_s = self._idle_since_s = self._clock.monotonic()
        if not isinstance(outcome, EngineDown):
            rendered_s = max(0.0, ended_s - started_s - engine.waited_s())
            self._probe_s = (
                FIRST_PROBE_S  # one that is up and takes nothing, for it is busy, is asked less and less often
            )
            self._unsettled.append(lambda: self._account(held, outcome, rendered_s, starved_s, switched=switching))
        return outcome

    def _sent(self, held: Held, job_id: str | None) -> None:
        """See to what waits for the engine to have its request; a job's id is noted before anything can go wrong."""
        self._settle()
        if job_id is not None:
            held.job_id = job_id
            self._processor.note_job(held)

    def _again_smaller(self, held: Held, run: PreparedRun) -> Answer:
        """Free the GPU and run the task once more, at batch size 1."""
        engine = self._lane.engine
        held.run = engine.smaller(run)
        try:
            engine.free_memory()
        except EngineDown as error:  # it died of the task: that was a run
            raise EngineLost(f"the engine went away after it had run out of memory: {error.message}") from error
        if held.is_lost or held.is_cancelled or self._stop.is_set():
            raise Interrupted
        return engine.generate(held.run, deadline_s=self._deadline_s, on_sent=partial(self._sent, held))

    def _account(self, held: Held, outcome: Outcome, seconds: float, starved_s: float, *, switched: bool) -> None:
        held.generate_ms = round(seconds * 1000)
        name = self._lane.engine.name
        self._metrics.rendered(name, seconds=seconds, starved_s=starved_s)
        with self._held.lock:
            self._held.tally.busy_s += seconds
        if switched:
            self._metrics.switches.labels(name).inc()
        if not isinstance(outcome, SchedulerError):
            self._metrics.queued_s.observe(held.queued_ms / 1000)
            self._metrics.generate_s.observe(seconds)
            with self._held.lock:
                self._lane.pace.learn(seconds, held.work, switched=switched)
                if not switched:
                    title = self._lane.engine.title(held.wanted) or ""
                    self._held.times.learn(engine=name, checkpoint=title, work=held.work, seconds=seconds)

    def _pass_on(self, held: Held, outcome: Outcome) -> None:
        self._held.move(held, State.READING)
        self._lane.running = None
        self._unsettled.append(lambda: self.outcomes.put((held, outcome)))
        if isinstance(outcome, SchedulerError):
            self._settle()  # what follows may take long, a restart or a wait for the engine, and no picture is at stake

    def _settle(self) -> None:
        """Let the others see what has happened: count, hand over, wake.

        It waits until the engine has its next request, for the others would take the interpreter from this thread
        just while the GPU waits for that request.
        """
        unsettled, self._unsettled = self._unsettled, []
        for act in unsettled:
            act()
        with self._held.lock:
            self._held.choice.signal()
            self._held.room.signal()

    # the engine's own state

    def _await_engine(self) -> None:
        if self._stop.wait(self._probe_s):
            return
        self._probe_s = min(MAX_PROBE_S, self._probe_s * 2)
        self._probe()

    def _probe(self) -> None:
        self._probed_s = self._clock.monotonic()
        if self._passes(with_picture=not self._lane.is_healthy):
            if not self._lane.is_healthy:
                self._lane.is_healthy = True
                self._probe_s, self._sick_probe_s = FIRST_PROBE_S, FIRST_SICK_PROBE_S
            self._idle_since_s = self._clock.monotonic() if not self._lane.is_ready else self._idle_since_s
            self._metrics.engine_up.labels(self._lane.engine.name).set(1)
            if self._lane.set_ready(ready=True):
                log.info("engine_ready", engine=self._lane.engine.name)

    def _passes(self, *, with_picture: bool) -> bool:
        """Ask whether the engine is there, and then for a known tiny picture; a failure is dealt with."""
        try:
            self._lane.engine.probe()
            if with_picture:
                self._lane.engine.golden(deadline_s=self._deadline_s)
        except (EngineDown, EngineBusy) as error:
            self._down(error.message)
        except SchedulerError as error:
            self._sick(str(error))
        else:
            return True
        return False

    def _down(self, why: str) -> None:
        self._metrics.engine_up.labels(self._lane.engine.name).set(0)
        # At the start it is down already, and its first silence must be told all the same.
        is_new = self._lane.set_ready(ready=False, why=why) or not self._was_told
        self._was_told = True
        if is_new:
            log.warning("engine_down", engine=self._lane.engine.name, why=why)

    def _confirm(self) -> None:
        """After failure upon failure, let a known tiny task tell whether the host or the tasks are to blame."""
        self._fatals = self._unreadable = 0
        if self._passes(with_picture=True):
            log.warning("tasks_to_blame", engine=self._lane.engine.name, fatals=FATALS_IN_A_ROW)

    def _sick(self, why: str) -> None:
        self._lane.is_healthy = False
        self._probe_s = self._sick_probe_s
        self._sick_probe_s = min(MAX_SICK_PROBE_S, self._sick_probe_s * 2)
        self._down(f"unhealthy: {why}")
        log.error(
            "host_unhealthy",
            engine=self._lane.engine.name,
            why=why,
            advice="look at the GPU and at the engine's log; it is probed again within a minute",
        )
        self._decline(f"the host is unhealthy: {why}")
        if not any(lane.is_healthy for lane in self._lanes):
            self._messages.return_unstarted(older_than_s=0.0, reason="unhealthy")

    def _restart(self, why: str) -> None:
        if self._lane.engine.restart():
            log.warning("engine_restarted", engine=self._lane.engine.name, why=why)
            self._down(f"restarted: {why}")
        else:
            self._sick(why)
