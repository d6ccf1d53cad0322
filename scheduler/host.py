"""This host as one of a fleet: what EC2 announces about it, its membership, and its turn at leading.

Three loops beside the work, none of which may cost a render: each is started again when it fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TextIO

import structlog

from scheduler.autoscale.leader import Leader, Outcome
from scheduler.autoscale.member import Member
from scheduler.autoscale.protocol import Report
from scheduler.aws.fleet_clients import build_autoscaling, build_ec2
from scheduler.aws.instance_metadata import InstanceMetadata
from scheduler.aws.instance_price import SpotPrice
from scheduler.aws.lifecycle_hook import LifecycleHooks
from scheduler.config import Settings
from scheduler.domain.cost import gpu_cost_usd
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.domain.ports import Clock
from scheduler.drain.notices import Kind, Notice
from scheduler.drain.plan import first_to_bind
from scheduler.drain.watch import Watcher
from scheduler.fleet import FleetParts, make_leader, open_fleet
from scheduler.held import UNSTARTED, Held, HeldTasks
from scheduler.intake import Intake
from scheduler.loops.lane import Lane
from scheduler.observe.metrics import Metrics

log = structlog.get_logger()

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
UNHEALTHY_S = 300.0
"""A host that cannot work for so long, though it once could, asks to be replaced."""
RETRY_S = 5.0
LATER_S = 30.0
HOOK_EVERY_S = 15.0
"""The shortest heartbeat that a hook may have is 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Why this host stops working for good, and until when it may take (epoch seconds)."""

    why: str
    deadline_s: float


class OneDaemon:
    """The lock that keeps a second daemon off the same instance; it goes with the process."""

    def __init__(self, instance_id: str) -> None:
        """Take the lock. Raises ConfigError when another daemon has it."""
        path = Path(tempfile.gettempdir()) / f"sd-scheduler-{instance_id}.lock"
        self._file: TextIO = path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            said = f"another daemon runs on {instance_id} (it holds {path}): a fleet counts one for each instance"
            raise ConfigError([said]) from error

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


class Host:
    """What of this host concerns its fleet. The loops are `watch`, `belong` and `lead`; each runs until `stopped`.

    `on_leaving` is called when EC2 is about to take the instance, and again when it will take it sooner than was told.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        intake: Intake,
        held: HeldTasks,
        lanes: Sequence[Lane],
        clock: Clock,
        metrics: Metrics,
        trouble: Callable[[], str],
        on_leaving: Callable[[Leaving], None],
        find_fleet: Callable[..., FleetParts] = open_fleet,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._held = held
        self._lanes = lanes
        self._clock = clock
        self._metrics = metrics
        self._trouble = trouble
        self._on_leaving = on_leaving
        self._find_fleet = find_fleet
        self._metadata = InstanceMetadata.from_environ(environ, clock=clock)
        self._watcher: Watcher | None = None
        self._member: Member | None = None
        self._leader: Leader | None = None
        self._parts: FleetParts | None = None
        self._lock: OneDaemon | None = None
        self._leaving: Leaving | None = None
        self._ready_s: float | None = None
        self._has_worked = False
        self._led_s = clock.monotonic()
        self._empty_since_s = clock.monotonic()
        self._ill_since_s: float | None = None
        self._price: SpotPrice | None = None
        self._hooks: LifecycleHooks | None = None
        self._hooks_asked_s = float("-inf")
        self._is_entered = False
        self.instance_id = ""
        if self.is_member:
            intake.shut("fleet", "the fleet has not been found yet")

    @property
    def is_member(self) -> bool:
        """Whether this host takes part in the fleet's protocol."""
        return self._settings.autoscaling.enabled

    def enter(self) -> None:
        """Find out who this host is and open the fleet; to be called again when it raises Unavailable.

        Where no fleet is configured nothing waits for the metadata: `watch` asks again.

        Raises ConfigError when a fleet is configured and this is no instance, or another daemon runs on it.
        """
        try:
            identity = self._metadata.identity() if self._metadata else None
        except Unavailable as error:
            if self.is_member:
                raise
            log.warning("metadata_unavailable", error=error.message)
            return
        if identity is None and self.is_member:
            said = "[autoscaling] enabled = true needs EC2's instance metadata, and there is none here"
            raise ConfigError([f"{said}: it is for instances; elsewhere run sd-scheduler autoscale"])
        self._is_entered = True
        if identity is None or self._metadata is None:
            return
        self.instance_id = identity.instance_id
        self._watcher = Watcher(self._metadata, on_notice=self._noticed, clock=self._clock)
        region = self._settings.aws.aws_region
        if identity.is_spot:
            self._price = SpotPrice(
                build_ec2(region), instance_type=identity.instance_type, zone=identity.zone, clock=self._clock
            )
        if not self.is_member:
            return
        self._lock = self._lock or OneDaemon(identity.instance_id)
        section = self._settings.autoscaling
        self._parts = self._find_fleet(self._settings, host=identity.instance_id)
        if section.fleet == "asg":
            client = build_autoscaling(region)
            self._hooks = LifecycleHooks(client, group=section.fleet_id, instance_id=identity.instance_id)
        self._member = Member(
            instance_id=identity.instance_id,
            boot_id=BOOT_ID_FILE.read_text().strip(),
            state=self._parts.state,
            fleet=self._parts.fleet,
            intake=self._intake,
            report=self._report,
            is_empty=self._is_empty,
            clock=self._clock,
        )
        self._leader = make_leader(self._parts, name=identity.instance_id)

    # the loops' bodies: each returns the seconds until its next call, infinite when it has nothing to do here

    def watch(self) -> float:
        """Look for notices, and act on them."""
        if not self._is_entered:
            self.enter()
        if self._watcher is None:
            return float("inf") if self._is_entered else LATER_S
        pause_s = self._watcher.cycle()
        self._ask_the_group_to_wait(self._watcher)
        self._consider(self._watcher)
        return pause_s

    def belong(self) -> float:
        """Report to the registry and obey it."""
        if self._member is None:
            return float("inf")
        try:
            return self._member.cycle()
        finally:  # whatever is found out about this host, the fleet hears of it first
            self._note_readiness()

    def lead(self) -> float:
        """Contend for the lead, and lead."""
        if self._leader is None:
            return float("inf")
        if self._leaving is not None:
            self._leader.resign()
            return float("inf")
        outcome = self._leader.tick()
        self._show(outcome)
        return outcome.next_s

    def _show(self, outcome: Outcome) -> None:
        """Show in the metrics what was decided, if it was decided here."""
        now_s = self._clock.monotonic()
        passed_s, self._led_s = now_s - self._led_s, now_s
        book, drawn = outcome.book, outcome.plan
        if book is None or drawn is None or not outcome.leads:
            self._metrics.fleet.follows()
            return
        events = [event.name for event in drawn.events]
        figures = {} if book.capacity is None else {"wanted": float(book.capacity)}
        if (seen := book.snapshot) is not None:
            figures |= {name: getattr(seen, name) for name in ("target", "serving", "draining", "visible")}
            figures |= {"booting": len(seen.booting_s), "in_flight": seen.in_flight, "running": seen.running}
            figures |= {"service_seconds": seen.service_s, "boot_seconds": seen.boot_s}
            figures |= {"members": seen.members, "waited_seconds": seen.waited_s}
        fleet = self._metrics.fleet
        fleet.led(figures, events=events, is_held=bool(book.hold), passed_s=passed_s)
        fleet.saw(
            is_modifying=outcome.look.is_modifying,
            drains_s=outcome.look.drains_s,
            failed_steps=outcome.failed_steps,
            passed_s=passed_s,
        )

    def price(self) -> float:
        """Ask what this instance costs."""
        if self._price is None:
            return float("inf") if self._is_entered else LATER_S
        return self._price.cycle()

    def cost_usd(self, gpu_s: float) -> Decimal | None:
        """Return what so many seconds of one engine cost; None where no price is known."""
        usd_per_hour = self._price.usd_per_hour if self._price else None
        if usd_per_hour is None:
            return None
        return gpu_cost_usd(usd_per_hour=usd_per_hour, gpu_s=gpu_s, engines=len(self._lanes))

    def resign(self) -> None:
        """Give the lead up at the stop, if AWS answers; else it runs out."""
        if self._leader is not None:
            with contextlib.suppress(Unavailable):
                self._leader.resign()

    # notices

    def _noticed(self, notice: Notice) -> None:
        """Nothing more is to be received from this moment on, should it be one that ends the work."""
        self._metrics.fleet.notices.labels(notice.kind.value).inc()
        if first_to_bind([notice], now_s=self._clock.now()):
            self._intake.shut("notice", notice.detail)

    def _ask_the_group_to_wait(self, watcher: Watcher) -> None:
        """Have the group that ends this instance wait for the running task, as long as its hook allows."""
        told = next((notice for notice in watcher.notices if notice.kind is Kind.ASG_TERMINATE), None)
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
            needed_s = now_s + self._settings.scheduler.task_deadline_s + HOOK_EVERY_S
            watcher.postpone(told.id, min(told.at_s + most_s, needed_s))

    def _consider(self, watcher: Watcher) -> None:
        found = first_to_bind(watcher.notices, now_s=self._clock.now())
        if found is None:
            return
        deadline_s, notice = found
        if self._leaving is not None and deadline_s >= self._leaving.deadline_s:
            return
        self._leaving = Leaving(why=notice.detail, deadline_s=deadline_s)
        self._intake.shut("notice", notice.detail)
        if self._member is not None:
            self._member.leave(notice.detail, replace=True)
        self._on_leaving(self._leaving)

    def close(self) -> None:
        """Let another daemon have the instance."""
        if self._lock is not None:
            self._lock.close()

    def left(self) -> None:
        """Nothing is held any more: let the group that waits for us go on."""
        if self._hooks is None or self._leaving is None:
            return
        try:
            self._hooks.let_go()
        except Unavailable as error:
            log.warning("lifecycle_hook_failed", error=error.message)

    # telling

    def _note_readiness(self) -> None:
        """Know since when work is possible here; ask to go when it has not been for too long."""
        if any(lane.is_ready for lane in self._lanes):
            self._ready_s = self._ready_s or self._clock.now()
            self._has_worked = True
        if self._member is None or self._parts is None:
            return
        if self._ready_s is None and self._member.worker is not None:
            self._ready_s = self._member.worker.report.ready_s  # of this boot, before this process was started
        if stuck := self._stuck():
            said = f"task {stuck[0].task.task_id} runs on {self._stuck_s:.0f} s after its deadline"
            self._ask_to_go(self._member, said, replace=self._parts.fleet.replaces)
        why = self._trouble()
        now_s = self._clock.monotonic()
        if not why:
            self._ill_since_s = None
            return
        self._ill_since_s = now_s if self._ill_since_s is None else self._ill_since_s
        ill_s = now_s - self._ill_since_s
        if not self._has_worked:
            return  # it has never worked since it was started: whoever leads knows how long a boot may take
        if self._parts.fleet.replaces and ill_s >= UNHEALTHY_S:
            self._ask_to_go(self._member, why, replace=True)
        elif not self._parts.fleet.replaces and 0 < self._stuck_s <= ill_s:
            self._ask_to_go(self._member, why, replace=False)

    def _ask_to_go(self, member: Member, why: str, *, replace: bool) -> None:
        if member.leave(why, replace=replace):
            advice = (
                "look at the GPU, the engine's log and the disk; a stopped instance begins anew with its next start"
            )
            log.error("host_unfit", why=why, replaced=replace, advice=advice)

    @property
    def _stuck_s(self) -> float:
        return self._settings.autoscaling.stuck_minutes * 60

    def _stuck(self) -> list[Held]:
        """Return the tasks that run on long after their own deadline, where that is to end the worker."""
        limit_s = self._settings.scheduler.task_deadline_s + self._stuck_s
        running = [lane.running for lane in self._lanes if lane.running is not None]
        return [held for held in running if self._stuck_s and self._clock.monotonic() - held.since_s > limit_s]

    def _is_empty(self) -> bool:
        """Tell whether nothing is held but what engines will never let go of, or never begin."""
        stuck = self._stuck()
        left = [held for held in self._held.all() if held not in stuck]
        if len(stuck) == len(self._lanes):
            left = [held for held in left if held.state not in UNSTARTED]
        return not left

    def _report(self) -> Report:
        held, tally, now_s = self._held.all(), self._held.tally, self._clock.monotonic()
        running = sum(lane.running is not None for lane in self._lanes)
        if held:
            self._empty_since_s = now_s
        notices = self._watcher.notices if self._watcher else ()
        return Report(
            running=running,
            waiting=sum(one.state in UNSTARTED for one in held),
            waiting_s=self._waiting_s([one for one in held if one.state in UNSTARTED]),
            received=tally.received,
            finished=tally.finished,
            busy_s=round(tally.busy_s, 1),
            idle_s=round(now_s - self._empty_since_s, 1),
            deadline_s=self._settings.scheduler.task_deadline_s,
            waited_s=round(tally.waited_s, 1),
            ready_s=self._ready_s,
            settings_no=self._parts.watch.settings_no if self._parts else 0,
            leave_first=notices[0].detail if notices else "",
        )

    def _waiting_s(self, waiting: Sequence[Held]) -> float | None:
        """Return the GPU seconds that these take, by what their like took; None when that is not known of all."""
        lanes = [next((lane for lane in self._lanes if lane.is_for(held.task)), self._lanes[0]) for held in waiting]
        expected_s = [lane.expected_s(held) for lane, held in zip(lanes, waiting, strict=True)]
        return None if None in expected_s else round(sum(filter(None, expected_s)), 1)

    def describe(self) -> dict[str, object]:
        """Return what health shows of it."""
        worker = self._member.worker if self._member else None
        return {
            "instance_id": self.instance_id,
            "state": worker.state.value if worker else None,
            "receives": not self._intake.why,
            "why_not": self._intake.why,
            "notices": [notice.detail for notice in self._watcher.notices] if self._watcher else [],
        }


def forever(run: Callable[[], float], *, name: str, stopped: Callable[[float], bool]) -> None:
    """Run one of the loops until `stopped` (which waits so many seconds) says so; an error costs a pause, no more."""
    while True:
        try:
            pause_s = run()
        except Unavailable as error:
            log.warning("fleet_loop_waits", loop=name, error=error.message)
            pause_s = RETRY_S
        except Exception:  # the loops of the fleet must never cost a render, whatever is wrong with them
            log.exception("fleet_loop_failed", loop=name)
            pause_s = RETRY_S
        if pause_s == float("inf") or stopped(pause_s):
            return
