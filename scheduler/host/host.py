"""The loops of this host's part in its fleet, and what they stand on once the host knows who it is.

Four loops beside the work, none of which may cost a render: each is started again when it fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import structlog

from scheduler.autoscale.leader import Leader
from scheduler.autoscale.member import Member
from scheduler.autoscale.protocol import Report
from scheduler.aws.fleet_clients import build_autoscaling, build_ec2
from scheduler.aws.instance_metadata import Identity, InstanceMetadata
from scheduler.aws.instance_price import SpotPrice
from scheduler.aws.lifecycle_hook import LifecycleHooks
from scheduler.config import Settings
from scheduler.domain.cost import gpu_cost_usd
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.domain.ports import Clock
from scheduler.fleet import FleetParts, make_leader, open_fleet
from scheduler.held import HeldTasks
from scheduler.host import figures
from scheduler.host.departure import Departure, Leaving
from scheduler.host.fitness import Fitness
from scheduler.host.one_daemon import OneDaemon
from scheduler.host.report import HostReport
from scheduler.intake import Intake
from scheduler.loops.lane import Lane
from scheduler.observe.metrics import Metrics

log = structlog.get_logger()

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
RETRY_S = 5.0
LATER_S = 30.0


class Host:
    """What of this host concerns its fleet. `watch`, `belong`, `lead` and `price` are what the loops repeat.

    `trouble` says why no work is possible here, and is empty when it is. `on_leaving` is called when EC2 is about to
    take the instance, and again when it will take it sooner than was told.
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
        self._lanes = lanes
        self._clock = clock
        self._metrics = metrics
        self._trouble = trouble
        self._on_leaving = on_leaving
        self._find_fleet = find_fleet
        self._metadata = InstanceMetadata.from_environ(environ, clock=clock)
        self._report = HostReport(settings, held=held, lanes=lanes, clock=clock)
        self._departure: Departure | None = None
        self._member: Member | None = None
        self._fitness: Fitness | None = None
        self._leader: Leader | None = None
        self._parts: FleetParts | None = None
        self._lock: OneDaemon | None = None
        self._led_s = clock.monotonic()
        self._price: SpotPrice | None = None
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
        hooks = self._join(identity) if self.is_member else None
        self._departure = Departure(
            self._metadata,
            hooks=hooks,
            member=self._member,
            intake=self._intake,
            clock=self._clock,
            metrics=self._metrics.fleet,
            task_deadline_s=self._settings.scheduler.task_deadline_s,
            on_leaving=self._on_leaving,
        )
        if identity.is_spot:
            ec2 = build_ec2(self._settings.aws.aws_region)
            self._price = SpotPrice(ec2, instance_type=identity.instance_type, zone=identity.zone, clock=self._clock)

    def _join(self, identity: Identity) -> LifecycleHooks | None:
        """Become a member and a contender; return the hooks of the group, where there is one."""
        section = self._settings.autoscaling
        self._lock = self._lock or OneDaemon(identity.instance_id)
        self._parts = parts = self._find_fleet(self._settings, host=identity.instance_id)
        self._member = Member(
            instance_id=identity.instance_id,
            boot_id=BOOT_ID_FILE.read_text().strip(),
            state=parts.state,
            fleet=parts.fleet,
            intake=self._intake,
            report=self._make_report,
            is_empty=self._report.is_empty,
            clock=self._clock,
        )
        self._fitness = Fitness(
            member=self._member, fleet=parts.fleet, report=self._report, trouble=self._trouble, clock=self._clock
        )
        self._leader = make_leader(parts, name=identity.instance_id)
        if section.fleet != "asg":
            return None
        client = build_autoscaling(self._settings.aws.aws_region)
        return LifecycleHooks(client, group=section.fleet_id, instance_id=identity.instance_id)

    def _make_report(self) -> Report:
        settings_no = self._parts.watch.settings_no if self._parts else 0
        notices = self._departure.notices if self._departure else ()
        return self._report.make(settings_no=settings_no, leave_first=notices[0].detail if notices else "")

    # the loops' bodies: each returns the seconds until its next call, infinite when it has nothing to do here

    def watch(self) -> float:
        """Look for notices, and act on them."""
        if not self._is_entered:
            self.enter()
        if self._departure is None:
            return float("inf") if self._is_entered else LATER_S
        return self._departure.cycle()

    def belong(self) -> float:
        """Report to the registry and obey it."""
        if self._member is None or self._fitness is None:
            return float("inf")
        try:
            return self._member.cycle()
        finally:  # whatever is found out about this host, the fleet hears of it first
            self._report.note_readiness(self._member.worker)
            self._fitness.check()

    def lead(self) -> float:
        """Contend for the lead, and lead."""
        if self._leader is None:
            return float("inf")
        if self._departure is not None and self._departure.leaving is not None:
            self._leader.resign()
            return float("inf")
        outcome = self._leader.tick()
        now_s = self._clock.monotonic()
        passed_s, self._led_s = now_s - self._led_s, now_s
        figures.show(outcome, self._metrics.fleet, passed_s=passed_s)
        return outcome.next_s

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

    def left(self) -> None:
        """Nothing is held any more: let the group that waits for us go on."""
        if self._departure is not None:
            self._departure.left()

    def close(self) -> None:
        """Let another daemon have the instance."""
        if self._lock is not None:
            self._lock.close()

    def describe(self) -> dict[str, object]:
        """Return what health shows of it."""
        worker = self._member.worker if self._member else None
        return {
            "instance_id": self.instance_id,
            "state": worker.state.value if worker else None,
            "receives": not self._intake.why,
            "why_not": self._intake.why,
            "notices": [notice.detail for notice in self._departure.notices] if self._departure else [],
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
