"""Which adapter holds the configured fleet."""

from __future__ import annotations

from scheduler.autoscale.fleets.asg import AutoScalingGroup
from scheduler.autoscale.fleets.instance import SingleInstance
from scheduler.autoscale.fleets.local import LocalFleet
from scheduler.autoscale.fleets.port import Fleet
from scheduler.autoscale.fleets.spot_fleet import SpotFleet
from scheduler.aws.fleet_clients import build_autoscaling, build_ec2
from scheduler.domain.ports import Clock


def build_fleet(kind: str, fleet_id: str, *, region: str, clock: Clock) -> Fleet:
    """Return the fleet of a kind that `[autoscaling] fleet` takes. Raises AccessDenied, Unavailable, ConfigError."""
    match kind:
        case "asg":
            return AutoScalingGroup(build_autoscaling(region), build_ec2(region), fleet_id, clock=clock)
        case "instance":
            return SingleInstance(build_ec2(region), fleet_id)
        case "local":
            return LocalFleet(fleet_id)
        case "spot-fleet":
            return SpotFleet(build_ec2(region), fleet_id, clock=clock)
        case _:
            raise ValueError(kind)
