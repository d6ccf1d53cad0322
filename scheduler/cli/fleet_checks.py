"""Doctor's look at the fleet: its table, its own settings, its bounds, and alarms that change it too."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.autoscale.fleets.build import build_fleet
from scheduler.autoscale.fleets.port import Condition
from scheduler.aws import check_fleet
from scheduler.aws.addresses import read_queue
from scheduler.aws.checking import Asking, Finding, fail, ok
from scheduler.aws.errors import translated
from scheduler.aws.fleet_clients import build_cloudwatch
from scheduler.aws.operator_clients import OperatorClients
from scheduler.aws.shape import STATE_KEY
from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import Unavailable


def findings(clients: OperatorClients, settings: Settings) -> Iterator[Finding]:
    """Yield what there is to say about the configured fleet; nothing where none is."""
    section = settings.autoscaling
    if not section.fleet_id:
        return
    yield _state_table(clients, settings.state_table)
    check = f"fleet {section.fleet_id}"
    try:
        fleet = build_fleet(section.fleet, section.fleet_id, region=settings.aws.aws_region, clock=SystemClock())
        view = fleet.describe()
    except Unavailable as error:
        yield fail(check, error.message, "see whether it exists in this region, and whether these credentials may look")
        return
    yield from check_fleet.settings(check, fleet.faults)
    if view.condition is Condition.ENDED:
        return
    yield from check_fleet.bounds(
        f"{check} bounds",
        policy=section.policy,
        min_capacity=section.min_capacity,
        max_capacity=section.max_capacity,
        min_size=view.min_size,
        max_size=view.max_size,
    )
    if section.fleet != "local":
        yield from check_fleet.alarms(
            f"{check} alarms",
            build_cloudwatch(settings.aws.aws_region),
            Asking(clock=SystemClock()),
            fleet_id=section.fleet_id,
            queues=[read_queue(queue).name for queue in settings.aws.sqs_queue_url],
        )


def _state_table(clients: OperatorClients, name: str) -> Finding:
    check = f"table {name}"
    try:
        with translated(f"describing table {name}"):
            keys = clients.dynamodb.describe_table(TableName=name)["Table"]["KeySchema"]
    except Unavailable as error:
        return fail(check, error.message, "run: sd-scheduler setup")
    found = tuple((key["AttributeName"], key["KeyType"]) for key in keys)
    if found != STATE_KEY:
        return fail(
            check, f"its key is {found}", "name another as [autoscaling] state_table, and run: sd-scheduler setup"
        )
    return ok(check, "key fleet, item")
