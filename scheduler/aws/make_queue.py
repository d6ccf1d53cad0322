"""Makes a queue and its dead-letter queue, or says how those that are there differ."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from scheduler.aws import shape
from scheduler.aws.addresses import QueueAddress, dlq_name, read_queue
from scheduler.aws.answers import understood
from scheduler.aws.described import Queue
from scheduler.aws.find_queue import find_queue
from scheduler.aws.making import POLL_S, Making, Outcome, State
from scheduler.domain.errors import Unavailable

NEW_QUEUE_POLLS = 15
"""SQS asks for a second between creating a queue and using it, and promises nothing."""


def make_queue(making: Making, name_or_url: str) -> Iterator[Outcome]:
    """Make a queue and the dead-letter queue that it names, or the usual one."""
    address = read_queue(name_or_url)
    resource = f"queue {address.name}"
    if address.account not in {None, making.account.number}:
        detail = f"its URL names account {address.account}, these credentials belong to {making.account.number}"
        yield making.outcome(resource, State.DIFFERS, detail)
        return
    queue = find_queue(making.clients.sqs, address.name)
    redrive = queue.redrive if queue else None
    dlq = redrive.dlq if redrive else QueueAddress(name=dlq_name(address.name))
    retention_s = queue.retention_s if queue else shape.QUEUE_RETENTION_S
    dlq_arn = yield from _make_dlq(making, dlq, retention_s=retention_s)
    policy = {"RedrivePolicy": shape.redrive_policy(dlq_arn)}
    wanted = _redriven(dlq, shape.MAX_RECEIVE_COUNT)
    if queue is None:
        _create(making, address.name, {"VisibilityTimeout": str(shape.VISIBILITY_S), **policy}, shape.QUEUE_RETENTION_S)
        yield making.outcome(resource, State.CREATED, f"visibility timeout {shape.VISIBILITY_S} s; {wanted}")
    elif redrive is None:
        _set(making, queue, policy)
        yield making.outcome(resource, State.ADDED, f"redrive policy: {wanted}")
    elif redrive.max_receive_count >= shape.MIN_RECEIVE_COUNT:
        yield making.outcome(resource, State.EXISTS, _redriven(dlq, redrive.max_receive_count))
    elif making.fixes:
        _set(making, queue, policy)
        yield making.outcome(resource, State.FIXED, f"{wanted}, not after {redrive.max_receive_count} any more")
    else:
        detail = f"{_redriven(dlq, redrive.max_receive_count)}: that buries healthy work; --fix makes it"
        yield making.outcome(resource, State.DIFFERS, f"{detail} {shape.MAX_RECEIVE_COUNT}")


def _redriven(dlq: QueueAddress, receives: int) -> str:
    return f"messages go to {dlq.name} after {receives} receives"


def _make_dlq(making: Making, dlq: QueueAddress, *, retention_s: int) -> Generator[Outcome, None, str]:
    """Make the dead-letter queue of a queue that keeps messages `retention_s`; return its ARN."""
    resource = f"queue {dlq.name}"
    if dlq.account not in {None, making.account.number}:
        yield making.outcome(resource, State.EXISTS, f"in account {dlq.account}, not looked at")
        return making.account.queue_arn(dlq)
    queue = find_queue(making.clients.sqs, dlq.name)
    if queue is None:
        created = _create(making, dlq.name, {}, shape.DLQ_RETENTION_S)
        yield making.outcome(resource, State.CREATED, f"keeps messages {_days(shape.DLQ_RETENTION_S)}")
        return created.arn if created else making.account.queue_arn(dlq)
    kept_s = queue.retention_s
    if kept_s >= retention_s:
        yield making.outcome(resource, State.EXISTS, f"keeps messages {_days(kept_s)}")
    elif making.fixes:
        _set(making, queue, {"MessageRetentionPeriod": str(shape.DLQ_RETENTION_S)})
        detail = f"keeps messages {_days(shape.DLQ_RETENTION_S)}, not {_days(kept_s)} any more"
        yield making.outcome(resource, State.FIXED, detail)
    else:
        detail = f"keeps messages {_days(kept_s)}, its queue {_days(retention_s)}: dead letters vanish unseen"
        yield making.outcome(resource, State.DIFFERS, f"{detail}; --fix makes it {_days(shape.DLQ_RETENTION_S)}")
    return queue.arn


def _days(seconds: int) -> str:
    return f"{seconds / shape.DAY_S:g} days"


def _create(making: Making, name: str, attributes: dict[str, str], retention_s: int) -> Queue | None:
    """Create a queue and wait until SQS knows it; return it, None when rehearsed."""
    if making.is_rehearsed:
        return None
    common = {"MessageRetentionPeriod": str(retention_s), "SqsManagedSseEnabled": "true"}
    with understood(f"creating queue {name}"):
        making.clients.sqs.create_queue(QueueName=name, Attributes=dict[Any, str](common | attributes))
    for _ in range(NEW_QUEUE_POLLS):
        if (known := find_queue(making.clients.sqs, name)) is not None:
            return known
        making.say(f"waiting for queue {name}")
        making.pause(POLL_S)
    raise Unavailable(f"queue {name} was created but SQS does not know it yet: run setup again in a minute")


def _set(making: Making, queue: Queue, attributes: dict[str, str]) -> None:
    if making.is_rehearsed:
        return
    with understood(f"changing queue {queue.url}"):
        making.clients.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes=dict[Any, str](attributes))
