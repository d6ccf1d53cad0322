"""A worker's part in the fleet: it reports, and obeys its own record. One thread reads, acts and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from scheduler.autoscale import protocol
from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.ports import FleetState
from scheduler.autoscale.protocol import Report, State, Worker
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock
from scheduler.intake import Intake

log = structlog.get_logger()

BEAT_S = 10.0
LEAVING_BEAT_S = 2.0
FENCE_S = 60.0
"""Without a heartbeat for so long nobody knows that we live, so we begin nothing new; far less than DEAD_AFTER_S."""
END_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Why this worker asks to go by itself, and whether another should come in its place."""

    why: str
    replace: bool


class Member:
    """This host's membership. One loop calls `cycle`; `leave` may be called from anywhere.

    Until it has read its record nothing is received: a daemon that was started anew does not know what was asked of
    the one before.
    """

    def __init__(
        self,
        *,
        instance_id: str,
        boot_id: str,
        state: FleetState,
        fleet: Fleet,
        intake: Intake,
        report: Callable[[], Report],
        is_empty: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._instance_id = instance_id
        self._boot_id = boot_id
        self._state = state
        self._fleet = fleet
        self._intake = intake
        self._report = report
        self._is_empty = is_empty
        self._clock = clock
        self._leave: Leave | None = None
        self._is_entered = False
        self._heard_s = clock.monotonic()
        self._is_fenced = False
        self._ended_s = float("-inf")
        self.worker: Worker | None = None
        """The record as it was read last."""
        intake.shut("fleet", "the fleet's registry has not been read yet")
        intake.watch(self._fence)

    def leave(self, why: str, *, replace: bool) -> bool:
        """Ask to go, at the next cycle; True the first time, after which it changes nothing."""
        is_first = self._leave is None
        if is_first:
            self._leave = Leave(why=why, replace=replace)
        return is_first

    def cycle(self) -> float:
        """Report, read, obey; return the seconds until the next cycle."""
        try:
            self._is_entered = self._enter_or_beat()
            if self.worker is not None:
                self._obey(self.worker)
        except Unavailable as error:
            if (why := self._fence()) and not self._is_fenced:
                self._is_fenced = True
                log.warning("fleet_fenced", why=why, error=error.message)
            return LEAVING_BEAT_S
        is_settled = self._is_entered and self.worker is not None and self.worker.state is State.ACTIVE
        return BEAT_S if is_settled and self._leave is None else LEAVING_BEAT_S

    def _enter_or_beat(self) -> bool:
        """Read our record by writing to it; False while it has to be entered anew."""
        now_s = self._clock.now()
        if self._is_entered and self.worker is not None:
            written = self._state.change(protocol.beat(self.worker, self._report(), now_s=now_s))
            self._heard()
            self._note(written.worker)
            return written.worker is not None and written.worker.boot_id in {self._boot_id, protocol.NEVER_BOOTED}
        seen = self._state.worker(self._instance_id)
        change = protocol.register(
            seen,
            instance_id=self._instance_id,
            boot_id=self._boot_id,
            now_s=now_s,
            term_is_final=self._fleet.replaces,
        )
        if change is None:
            self._note(seen)
            self._heard()
            return True
        written = self._state.change(change)
        if written.is_applied:
            log.info("fleet_entered", instance_id=self._instance_id, boot_id=self._boot_id)
            self._note(written.worker)
            self._heard()
        return written.is_applied

    def _heard(self) -> None:
        self._heard_s = self._clock.monotonic()
        if self._is_fenced:
            self._is_fenced = False
            log.info("fleet_answers_again")

    def _fence(self) -> str:
        """Say why nothing new may begin here, whatever keeps the heartbeats from being written; empty when it may."""
        silent_s = self._clock.monotonic() - self._heard_s
        return f"no heartbeat could be written for {silent_s:.0f} s" if silent_s > FENCE_S else ""

    def _note(self, worker: Worker | None) -> None:
        before = self.worker.state if self.worker else None
        self.worker = worker
        if worker is not None and worker.state is not before:
            log.info("fleet_state", state=worker.state.value, why=worker.why, was=before.value if before else None)

    def _obey(self, worker: Worker) -> None:
        now_s = self._clock.now()
        duty = self._duty(worker, is_idle=False, now_s=now_s)
        if duty.may_receive and self._leave is None:
            self._intake.open("fleet")
        else:
            self._intake.shut("fleet", f"{worker.state.value}: {worker.why}" if worker.why else worker.state.value)
        # Measured only now that nothing more can begin: what was on its way in has arrived, or is not quiet yet.
        is_idle = self._intake.is_quiet and self._is_empty()
        duty = self._duty(worker, is_idle=is_idle, now_s=now_s)
        change = duty.change
        asks_to_stay = worker.state is State.ACTIVE or worker.is_recalled
        if self._leave is not None and asks_to_stay and worker.boot_id == self._boot_id:
            change = protocol.drain(worker, why=self._leave.why, replace=self._leave.replace, firm=True, now_s=now_s)
        if change is not None:
            self._note(self._state.change(change).worker)
        if duty.ends and self._clock.monotonic() - self._ended_s > END_AGAIN_S:
            self._ended_s = self._clock.monotonic()
            log.warning("ending_this_instance", instance_id=self._instance_id, why=worker.why, replace=worker.replace)
            try:
                self._fleet.end_self(self._instance_id, replace=worker.replace)
            except Unavailable as error:
                log.error("cannot_end_this_instance", instance_id=self._instance_id, error=error.message)  # noqa: TRY400 - AWS's words say it all

    def _duty(self, worker: Worker, *, is_idle: bool, now_s: float) -> protocol.Duty:
        return protocol.duty(
            worker, boot_id=self._boot_id, is_idle=is_idle, now_s=now_s, term_is_final=self._fleet.replaces
        )
