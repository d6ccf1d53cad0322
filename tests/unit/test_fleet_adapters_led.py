"""The real leader and members on the real adapters, over AWS's clients in virtual time: lags, throttling, reclaims."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import structlog
from fakes.fleet import REQUEST_ID, FakeFleet
from fakes.fleet_asg import GROUP, FakeAsg
from fakes.fleet_ec2 import FakeEc2, Pace
from fleet_in_memory import Faults, World

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.fleets.spot_fleet import SpotFleet

PACE = Pace(show_lag_s=3.0, list_lag_s=8.0, modify_s=11.0)


class CloudFleet:
    """An adapter as the world of `fleet_in_memory` wants its fleet: hosts begin and end with the fake's instances."""

    def __init__(self, world: World, kind: str) -> None:
        self._world = world
        rng = random.Random(11)
        self.asg: FakeAsg | None = None
        self.ec2: FakeEc2
        self._fleet: Fleet
        if kind == "asg":
            self.ec2 = FakeEc2(world.clock, rng, pace=PACE)
            self.asg = FakeAsg(self.ec2)
            self._fleet = AutoScalingGroup(self.asg, self.ec2, GROUP, clock=world.clock)
        else:
            self.ec2 = FakeFleet(world.clock, rng, pace=PACE)
            self._fleet = SpotFleet(self.ec2, REQUEST_ID, clock=world.clock)
        self.ec2.page_size = 2
        self.ec2.on_launch.append(world.host_launched)
        self.ec2.on_end.append(self._ended)
        self._pump()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fleet, name)

    @property
    def alive(self) -> list[str]:
        return [each.instance_id for each in self.ec2.up()]

    @property
    def target(self) -> int:
        return self.asg.desired if self.asg else self.ec2.target

    def reclaim(self, instance_id: str) -> None:
        self.ec2.end(instance_id, by="reclaim")

    def _ended(self, instance_id: str) -> None:
        if self.ec2.instances[instance_id].ended_by != "reclaim":
            self._world.judge_end(instance_id)
        self._world.host_ended(instance_id)

    def _pump(self) -> None:
        self.ec2.time.catch_up()
        self._world.after(1.0, self._pump)


def world_on(kind: str, **options: Any) -> tuple[World, CloudFleet]:
    world = World(has_outsider=False, **options)
    fleet = CloudFleet(world, kind)
    world.fleet = fleet
    world.outsider = world.new_leader("cron", None, looks_once=True)
    world.after(1.0, world._outsider_ticks)
    return world, fleet


@pytest.fixture(autouse=True)
def quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.parametrize("kind", ["spot-fleet", "asg"])
def test_burst_grows_it_from_nothing_and_quiet_shrinks_it_to_nothing(kind: str) -> None:
    world, fleet = world_on(kind)
    world.send(60)
    world.run_until(lambda: all(task.ended_s for task in world.tasks))
    assert world.most_alive == 4
    world.run_until(lambda: fleet.alive == [], within_s=3600)
    assert (fleet.target, world.violations) == (0, [])
    assert all(task.runs == 1 for task in world.tasks)


@pytest.mark.parametrize("kind", ["spot-fleet", "asg"])
def test_hours_of_trouble_end_no_busy_worker_and_lose_no_task(kind: str) -> None:
    faults = Faults(killed=0.0005, unavailable=0.005, reclaims_per_hour=3.0, silent_death=0.01)
    world, fleet = world_on(kind, faults=faults)
    fleet.ec2.throttled_share = 0.02
    for hour in range(12):
        fleet.ec2.stock = 1 if hour % 6 == 5 else None
        world.send(world.random.randint(0, 80), service_s=world.random.lognormvariate(3.0, 0.7))
        world.run(3600)
    fleet.ec2.stock = None
    world.run_until(lambda: all(task.ended_s for task in world.tasks), within_s=4 * 3600)
    world.run_until(lambda: fleet.alive == [], within_s=4 * 3600)
    assert world.violations == []
    assert {by for _, _, by in fleet.ec2.ends} <= {"api", "reclaim"}, "AWS chose nobody"
    assert world.reclaims > 20
    if isinstance(fleet.ec2, FakeFleet):
        assert fleet.ec2.lost_modifies == 0
