"""What this host tells its fleet of the work on it."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.autoscale.protocol import Report, Worker
from scheduler.config import Settings
from scheduler.domain.ports import Clock
from scheduler.held import UNSTARTED, Held, HeldTasks
from scheduler.loops.lane import Lane


class HostReport:
    """Looks at what is held and at what runs; changes nothing of it.

    A task is stuck that runs on for `stuck_s` after its own deadline; 0 means that none ever is.
    """

    def __init__(self, settings: Settings, *, held: HeldTasks, lanes: Sequence[Lane], clock: Clock) -> None:
        self._deadline_s = settings.scheduler.task_deadline_s
        self.stuck_s = settings.autoscaling.stuck_minutes * 60
        self._held = held
        self._lanes = lanes
        self._clock = clock
        self._ready_s: float | None = None
        self._empty_since_s = clock.monotonic()
        self.has_worked = False
        """Whether work was possible here since the daemon was started."""

    def note_readiness(self, worker: Worker | None) -> None:
        """Note since when work is possible here; `worker` is what the registry knows of this host."""
        if any(lane.is_ready for lane in self._lanes):
            self._ready_s = self._ready_s or self._clock.now()
            self.has_worked = True
        if self._ready_s is None and worker is not None:
            self._ready_s = worker.report.ready_s  # of this boot, before this process was started

    def make(self, *, settings_no: int, leave_first: str) -> Report:
        """Return the report of now."""
        held, tally, now_s = self._held.all(), self._held.tally, self._clock.monotonic()
        running = sum(lane.running is not None for lane in self._lanes)
        if held:
            self._empty_since_s = now_s
        return Report(
            running=running,
            waiting=sum(one.state in UNSTARTED for one in held),
            waiting_s=self._waiting_s([one for one in held if one.state in UNSTARTED]),
            received=tally.received,
            finished=tally.finished,
            busy_s=round(tally.busy_s, 1),
            idle_s=round(now_s - self._empty_since_s, 1),
            deadline_s=self._deadline_s,
            waited_s=round(tally.waited_s, 1),
            ready_s=self._ready_s,
            settings_no=settings_no,
            leave_first=leave_first,
        )

    def _waiting_s(self, waiting: Sequence[Held]) -> float | None:
        """Return the GPU seconds that these take, by what their like took; None when that is not known of all."""
        lanes = [next((lane for lane in self._lanes if lane.is_for(held.task)), self._lanes[0]) for held in waiting]
        expected_s = [lane.expected_s(held) for lane, held in zip(lanes, waiting, strict=True)]
        return None if None in expected_s else round(sum(filter(None, expected_s)), 1)

    def stuck(self) -> list[Held]:
        """Return the tasks that are stuck."""
        limit_s = self._deadline_s + self.stuck_s
        running = [lane.running for lane in self._lanes if lane.running is not None]
        return [held for held in running if self.stuck_s and self._clock.monotonic() - held.since_s > limit_s]

    def is_empty(self) -> bool:
        """Tell whether nothing is held but what engines will never let go of, or never begin."""
        stuck = self.stuck()
        left = [held for held in self._held.all() if held not in stuck]
        if len(stuck) == len(self._lanes):
            left = [held for held in left if held.state not in UNSTARTED]
        return not left
