"""When this host asks its fleet to let it go, because it cannot work any more."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.member import Member
from scheduler.domain.ports import Clock
from scheduler.host.report import HostReport

log = structlog.get_logger()

UNHEALTHY_S = 300.0
"""A host that cannot work for so long, though it once could, asks to be replaced."""


class Fitness:
    """Looks for a task that is stuck, and for `trouble` that stays; it is empty when there is none."""

    def __init__(
        self, *, member: Member, fleet: Fleet, report: HostReport, trouble: Callable[[], str], clock: Clock
    ) -> None:
        self._member = member
        self._fleet = fleet
        self._report = report
        self._trouble = trouble
        self._clock = clock
        self._ill_since_s: float | None = None

    def check(self) -> None:
        """Ask to go when work has not been possible for too long."""
        stuck_s = self._report.stuck_s
        if stuck := self._report.stuck():
            said = f"task {stuck[0].task.task_id} runs on {stuck_s:.0f} s after its deadline"
            self._ask_to_go(said, replace=self._fleet.replaces)
        why = self._trouble()
        now_s = self._clock.monotonic()
        if not why:
            self._ill_since_s = None
            return
        self._ill_since_s = now_s if self._ill_since_s is None else self._ill_since_s
        ill_s = now_s - self._ill_since_s
        if not self._report.has_worked:
            return  # it has never worked since it was started: whoever leads knows how long a boot may take
        if self._fleet.replaces and ill_s >= UNHEALTHY_S:
            self._ask_to_go(why, replace=True)
        elif not self._fleet.replaces and 0 < stuck_s <= ill_s:
            self._ask_to_go(why, replace=False)

    def _ask_to_go(self, why: str, *, replace: bool) -> None:
        if self._member.leave(why, replace=replace):
            advice = (
                "look at the GPU, the engine's log and the disk; a stopped instance begins anew with its next start"
            )
            log.error("host_unfit", why=why, replaced=replace, advice=advice)
