"""The receive loop of one queue: takes work just in time, as long as this host can do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from scheduler.admission import Admission
from scheduler.domain.errors import Unavailable
from scheduler.domain.pace import WINDOW_TASKS, ask_for
from scheduler.domain.ports import Clock, MessageQueue
from scheduler.domain.retry import backoff_s
from scheduler.domain.turns import Turns
from scheduler.held import HeldTasks
from scheduler.intake import Intake
from scheduler.loops.lane import Lane
from scheduler.observe.advice import advice_for
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.stop import StopSignal

log = structlog.get_logger()


class ReceiveLoop:
    """Asks one queue for as much as the engines will need, and hands it to be admitted."""

    def __init__(
        self,
        queue: MessageQueue,
        *,
        index: int,
        turns: Turns,
        lanes: Sequence[Lane],
        admission: Admission,
        outages: Outages,
        held: HeldTasks,
        intake: Intake,
        clock: Clock,
        metrics: Metrics,
        stop: StopSignal,
        skewed: Callable[[], str | None],
        most: int,
        wait_s: int,
    ) -> None:
        self._queue = queue
        self._index = index
        self._turns = turns
        self._lanes = lanes
        self._admission = admission
        self._outages = outages
        self._held = held
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._stop = stop
        self._skewed = skewed
        self._most = most
        self._wait_s = wait_s
        self._last_full = 0
        self._failures = 0
        self.last_poll_s: float | None = None
        self.trouble: str | None = None

    def run(self) -> None:
        """Receive until the stop."""
        while not self._stop.is_set():
            self.cycle()

    def cycle(self) -> None:
        """Receive once if there is room and reason to, else wait until that may have changed."""
        seen = self._held.room.version
        count = 0 if self._intake.why else self._room()
        self._held.deepening(is_so=count > 0 and self._last_full > 0)
        if count == 0 or not self._intake.begin():
            self._held.room.wait(seen, 0.25)
            return
        try:
            self._receive(count)
        finally:
            self._intake.end()

    def _receive(self, count: int) -> None:
        started_s = self._clock.monotonic()
        try:
            messages = self._queue.receive(count, wait_s=self._wait_s)
            took_s = self._clock.monotonic() - started_s
            self._received(len(messages), count, took_s)
            self._admission.admit(messages)
            if self._last_full:
                with self._held.lock:
                    for pace in {id(lane.pace): lane.pace for lane in self._lanes}.values():
                        pace.learn_receive(self._clock.monotonic() - started_s)
        except Unavailable as error:
            self._failed(error)
        else:
            if self.trouble:
                log.info("queue_answers_again", queue=self._index)
            self.trouble, self._failures = None, 0

    def _received(self, got: int, asked: int, took_s: float) -> None:
        self.last_poll_s = self._clock.monotonic()
        self._last_full = got if got == asked and took_s < 1.0 else 0
        self._turns.received(self._index, full=got == asked)
        self._metrics.receives.inc()
        self._metrics.received.inc(got)

    def _failed(self, error: Unavailable) -> None:
        self._failures += 1
        self._last_full = 0
        self._turns.received(self._index, full=False)
        self._metrics.aws_errors.inc()
        if self.trouble is None:
            log.warning("queue_unavailable", queue=self._index, error=str(error), advice=advice_for(error))
        self.trouble = str(error)
        self._stop.wait(min(30.0, backoff_s(self._failures, 1.0)))

    def _room(self) -> int:
        """Return how many messages to ask for now."""
        ready = [lane for lane in self._lanes if lane.is_ready]
        if not ready or self._outages.trouble or self._skewed() or not self._turns.may_receive(self._index):
            return 0
        kinds = {
            lane.engine.runtimes: [one for one in ready if one.engine.runtimes == lane.engine.runtimes]
            for lane in ready
        }
        return max(0, *(self._room_for(lanes, [one for one in ready if one not in lanes]) for lanes in kinds.values()))

    def _room_for(self, lanes: Sequence[Lane], others: Sequence[Lane]) -> int:
        """Return how many messages to ask for, for engines of one kind.

        What comes may be for `others`, which work too: of that no more is held than may wait for a checkpoint. What is
        held for an engine that is down is none of it.
        """
        pace, title, is_for = lanes[0].pace, lanes[0].engine.title, lanes[0].is_for
        in_hand = self._held.in_hand(pace, title, [lane.title_after_line() for lane in lanes], is_for)
        others_waiting = self._held.in_hand(
            pace, title, [], lambda task: any(lane.is_for(task) for lane in others)
        ).waiting
        with self._held.lock:
            mean_s, target_s = pace.mean_s, pace.target_s()
        wanted = ask_for(
            in_hand,
            mean_s=mean_s,
            target_s=target_s,
            engines=len(lanes),
            most=self._most,
            last_full=self._last_full,
        )
        return min(wanted, WINDOW_TASKS * len(others) - others_waiting) if others else wanted
