"""The way out when EC2 takes the instance: from its notice until the group that waits for us is let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from scheduler.autoscale.member import Member
from scheduler.aws.lifecycle_hook import LifecycleHooks
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock
from scheduler.drain.notices import Kind, Notice
from scheduler.drain.plan import first_to_bind
from scheduler.drain.watch import Metadata, Watcher
from scheduler.intake import Intake
from scheduler.observe.fleet_metrics import FleetMetrics

log = structlog.get_logger()

HOOK_EVERY_S = 15.0
"""The shortest heartbeat that a hook may have is 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Why this host stops working for good, and until when it may take (epoch seconds)."""

    why: str
    deadline_s: float


class Departure:
    """Looks for notices and acts on them; one loop calls `cycle`.

    `hooks` are those of the group, None where no group ends instances; `member` is None outside of a fleet.
    `on_leaving` is called when EC2 is about to take the instance, and again when it will take it sooner than was told.
    """

    def __init__(
        self,
        metadata: Metadata,
        *,
        hooks: LifecycleHooks | None,
        member: Member | None,
        intake: Intake,
        clock: Clock,
        metrics: FleetMetrics,
        task_deadline_s: float,
        on_leaving: Callable[[Leaving], None],
    ) -> None:
        self._watcher = Watcher(metadata, on_notice=self._noticed, clock=clock)
        self._hooks = hooks
        self._hooks_asked_s = float("-inf")
        self._member = member
        self._intake = intake
        self._clock = clock
        self._metrics = metrics
        self._task_deadline_s = task_deadline_s
        self._on_leaving = on_leaving
        self.leaving: Leaving | None = None

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What is announced, in the order in which it was told."""
        return self._watcher.notices

    def cycle(self) -> float:
        """Look for notices once, and act on them; return the seconds until the next time."""
        pause_s = self._watcher.cycle()
        self._ask_the_group_to_wait()
        self._consider()
        return pause_s

    def _noticed(self, notice: Notice) -> None:
        """Nothing more is to be received from this moment on, should it be one that ends the work."""
        self._metrics.notices.labels(notice.kind.value).inc()
        if first_to_bind([notice], now_s=self._clock.now()):
            self._intake.shut("notice", notice.detail)

    def _ask_the_group_to_wait(self) -> None:
        """Have the group that ends this instance wait for the running task, as long as its hook allows."""
        told = next((notice for notice in self.notices if notice.kind is Kind.ASG_TERMINATE), None)
        if told is None or self._hooks is None or self._clock.monotonic() - self._hooks_asked_s < HOOK_EVERY_S:
            return
        self._hooks_asked_s = self._clock.monotonic()
        now_s = self._clock.now()
        try:
            most_s = max((hook.global_s for hook in self._hooks.ours()), default=0)
            waits_until_s = self._hooks.keep_waiting(since_s=told.at_s, now_s=now_s)
        except Unavailable as error:
            log.warning("lifecycle_hook_failed", error=error.message)
            return
        if waits_until_s is not None:
            needed_s = now_s + self._task_deadline_s + HOOK_EVERY_S
            self._watcher.postpone(told.id, min(told.at_s + most_s, needed_s))

    def _consider(self) -> None:
        found = first_to_bind(self.notices, now_s=self._clock.now())
        if found is None:
            return
        deadline_s, notice = found
        if self.leaving is not None and deadline_s >= self.leaving.deadline_s:
            return
        self.leaving = Leaving(why=notice.detail, deadline_s=deadline_s)
        self._intake.shut("notice", notice.detail)
        if self._member is not None:
            self._member.leave(notice.detail, replace=True)
        self._on_leaving(self.leaving)

    def left(self) -> None:
        """Nothing is held any more: let the group that waits for us go on."""
        if self._hooks is None or self.leaving is None:
            return
        try:
            self._hooks.let_go()
        except Unavailable as error:
            log.warning("lifecycle_hook_failed", error=error.message)
