"""The order in which everything stops: nothing new, what has not started goes back, what runs may finish, within the
grace.

The other way round than the start: receive, prepare, engine, decode, store, announce, delete, webhooks, keepers. Each
wait is bounded by the grace.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import structlog

from scheduler.domain.ports import Clock
from scheduler.held import HeldTasks
from scheduler.held_messages import HeldMessages
from scheduler.loops.finish import Finished
from scheduler.loops.lane import Lane
from scheduler.notify.webhook import WebhookSender
from scheduler.stop import StopSignal
from scheduler.task_processor import TaskProcessor
from scheduler.threads import Threads

log = structlog.get_logger()

LAST_WEBHOOKS_S = 5.0
"""What webhooks get at the stop, when everything else is done."""
LAST_CYCLES_S = 5.0
"""The same for what keeps the held alive and what shows previews."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """What has to be stopped of a worker that works; `run` is called once."""

    stop: StopSignal
    threads: Threads
    lanes: Sequence[Lane]
    held: HeldTasks
    messages: HeldMessages
    processor: TaskProcessor
    finished: SimpleQueue[Finished | None]
    webhooks: WebhookSender
    keepers_stop: threading.Event
    clock: Clock
    longest_poll_s: float

    def run(self, *, is_last: bool) -> None:
        """Stop what works, once the stop is signalled.

        With `is_last` the host ends with the grace, and what cannot be finished by then is interrupted at once.
        """
        stop, threads = self.stop, self.threads
        polled_s = self.clock.monotonic() + self.longest_poll_s
        self._return_unstarted()
        if is_last:
            self.interrupt_what_does_not_fit()
        # A long poll that outlasts the grace must not keep the running task from being given back in time.
        threads.join("receive", stop.work_left_s)
        threads.join("prepare", stop.work_left_s)
        self._return_unstarted()
        if not threads.join("engine", stop.work_left_s):
            for lane in self.lanes:  # beside each other, for one that is deaf must not use up the others' time
                threads.start("interrupt", partial(_interrupt, lane))
            threads.join("engine", stop.left_s)
        threads.join("prepare", stop.left_s)
        self._return_unstarted()  # an engine that went away left its task here
        threads.join("decode", stop.left_s)
        self._finish_and_tell()
        threads.join("receive", lambda: max(0.0, polled_s - self.clock.monotonic()))  # it puts back what it brings
        self._return_unstarted()  # unless it was at that already when the stop began
        self.keepers_stop.set()
        threads.join("interrupt", lambda: min(LAST_CYCLES_S, stop.left_s()))
        threads.join("keep", lambda: min(LAST_CYCLES_S, stop.left_s()))
        threads.join("preview", lambda: min(LAST_CYCLES_S, stop.left_s()))
        log.info("scheduler_stopped", left=[held.task.task_id for held in self.held.all()])

    def _finish_and_tell(self) -> None:
        stop, threads = self.stop, self.threads
        for _ in range(threads.size("store")):
            self.finished.put(None)
        threads.join("store", stop.left_s)
        for _ in range(threads.size("announce")):
            self.processor.announcements.put(None)
        threads.join("announce", stop.left_s)
        self.messages.deletions.put(None)
        threads.join("delete", stop.left_s)
        threads.join("return", stop.left_s)
        self.webhooks.close(min(LAST_WEBHOOKS_S, stop.left_s()))
        threads.join("webhook", stop.left_s)

    def _return_unstarted(self) -> None:
        self.messages.return_unstarted(older_than_s=0.0, reason="stop")
        for lane in self.lanes:
            while (held := lane.withdraw()) is not None:
                # Its claim must be released first, and DynamoDB may not answer: that must not hold up the stop.
                self.threads.start("return", partial(self.processor.return_claimed, held, reason="stop"))

    def interrupt_what_does_not_fit(self) -> None:
        """Interrupt runs that would not be done in time, so that another worker begins them the sooner."""
        for lane in self.lanes:
            remaining_s = lane.remaining_s()
            if remaining_s is not None and remaining_s > self.stop.work_left_s():
                self.threads.start("interrupt", partial(_interrupt, lane))


def _interrupt(lane: Lane) -> None:
    if (running := lane.running) is not None and running.run is not None:
        log.warning("run_interrupted", task_id=running.task.task_id)
        lane.engine.interrupt(running.run)
