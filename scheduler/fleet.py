"""The fleet's parts put together by the configuration: for the daemon, and for commands that have no worker."""

from __future__ import annotations

import os
from dataclasses import dataclass

from scheduler.autoscale.backlog import SqsBacklog
from scheduler.autoscale.ensure import CapacityKeeper
from scheduler.autoscale.fleets.build import build_fleet
from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.leader import Leader, Terms
from scheduler.autoscale.policies import choice
from scheduler.autoscale.ports import Backlog, FleetState
from scheduler.autoscale.report import FleetReport, report
from scheduler.autoscale.settings_watch import SettingsWatch
from scheduler.autoscale.state_table import DynamoFleetState
from scheduler.autoscale.survey import Bounds
from scheduler.aws.clients import build
from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import ConfigError
from scheduler.domain.skew import SkewBounds
from scheduler.sqs_consumer import discover


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What the loops and the commands of the fleet stand on."""

    settings: Settings
    state: FleetState
    fleet: Fleet
    backlog: Backlog
    watch: SettingsWatch

    def terms(self) -> Terms:
        """Return the section in force as the leader uses it. Raises Unavailable."""
        followed = self.watch.followed()
        section = followed.section
        bounds = Bounds(min_capacity=section.min_capacity, max_capacity=section.max_capacity)
        return Terms(policy=choice.policy(section), bounds=bounds, settings_no=followed.version)


def look(parts: FleetParts) -> FleetReport:
    """Return the fleet as it is now, for people. Raises Unavailable."""
    state = parts.state
    return report(
        parts.fleet.describe(),
        state.registry(),
        parts.backlog.counts(),
        name=parts.fleet.name,
        book=state.book(),
        pause=state.pause(),
        now_s=SystemClock().now(),
    )


def open_fleet(settings: Settings, *, host: str, publishes: bool = True) -> FleetParts:
    """Return the parts; without `publishes` this host's settings are followed here and nowhere else.

    Raises Unavailable, and ConfigError when no fleet is configured.
    """
    section, aws = settings.autoscaling, settings.aws
    if not section.fleet_id:
        raise ConfigError(["[autoscaling] fleet_id is missing: say which fleet is meant"])
    clock = SystemClock()
    clients = build(aws.aws_region, poll_interval_s=1, threads=2)
    urls = [discover(clients.sqs, name, clock=clock, skew=SkewBounds()).url for name in aws.sqs_queue_url]
    name = f"{section.fleet}/{section.fleet_id}"
    state = DynamoFleetState(clients.keeper_dynamodb, settings.state_table, name, clock=clock)
    return FleetParts(
        settings=settings,
        state=state,
        fleet=build_fleet(section.fleet, section.fleet_id, region=aws.aws_region, clock=clock),
        backlog=SqsBacklog(clients.sqs, urls),
        watch=SettingsWatch(settings, os.environ, host=host, state=state, publishes=publishes),
    )


def capacity_keeper(settings: Settings, *, host: str) -> CapacityKeeper:
    """Return what a sender of tasks calls after each send, so that the fleet grows from nothing at once.

    Raises Unavailable, and ConfigError when no fleet is configured.
    """
    leader = make_leader(open_fleet(settings, host=host), name=host, looks_once=True)
    return CapacityKeeper(leader, SystemClock())


def make_leader(parts: FleetParts, *, name: str, looks_once: bool = False, acts: bool = True) -> Leader:
    """Return one contender for the lead."""
    return Leader(
        name=name,
        state=parts.state,
        fleet=parts.fleet,
        backlog=parts.backlog,
        terms=parts.terms,
        clock=SystemClock(),
        deadline_s=parts.settings.scheduler.task_deadline_s,
        looks_once=looks_once,
        acts=acts,
    )
