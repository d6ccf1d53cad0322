"""Creates what the product needs at AWS and leaves as it is what is already there; it knows names, not settings.

Each resource is made for itself: one that AWS refuses does not keep the others from being made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scheduler.aws.addresses import MAX_QUEUE_NAME_CHARS, dlq_name, read_queue, region_fault
from scheduler.aws.make_bucket import make_bucket
from scheduler.aws.make_queue import make_queue
from scheduler.aws.make_state_table import make_state_table
from scheduler.aws.make_table import make_table
from scheduler.aws.making import Making, Outcome, State
from scheduler.domain.errors import AccessDenied, Unavailable


def name_faults(queues: Sequence[str], region: str) -> list[str]:
    """Return what makes it impossible to create these queues in `region`, one line each."""
    faults = [fault for queue in queues if (fault := region_fault(queue, region))]
    names = [read_queue(queue).name for queue in queues]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            faults.append(f"sqs_queue_url names the queue {name} more than once")
        if len(dlq_name(name)) > MAX_QUEUE_NAME_CHARS:
            faults.append(
                f"sqs_queue_url: {name} is too long: {dlq_name(name)} would exceed {MAX_QUEUE_NAME_CHARS} characters"
            )
        if dlq_name(name) in names:
            faults.append(f"sqs_queue_url: {dlq_name(name)} is the dead-letter queue of {name}, not one to work from")
    return faults


def set_up(
    making: Making, *, queues: Sequence[str], table: str, bucket: str, state_table: str | None = None
) -> Iterator[Outcome]:
    """Make everything; yield an outcome for each resource as soon as it is known. Raises nothing of AWS's.

    `state_table` is the fleet's, None where there is no fleet.
    """
    for name_or_url in queues:
        yield from _guarded(making, f"queue {read_queue(name_or_url).name}", make_queue(making, name_or_url))
    yield from _guarded(making, f"table {table}", make_table(making, table))
    if state_table is not None:
        yield from _guarded(making, f"table {state_table}", make_state_table(making, state_table))
    yield from _guarded(making, f"bucket {bucket}", make_bucket(making, bucket))


def _guarded(making: Making, resource: str, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    try:
        yield from outcomes
    except AccessDenied as error:
        yield making.outcome(resource, State.REFUSED, error.message)
    except Unavailable as error:
        yield making.outcome(resource, State.FAILED, error.message)
