"""The finished tasks of a whole table, page by page: when each was sent and how long the GPU worked for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from scheduler.aws.answers import understood
from scheduler.domain.claiming import is_number
from scheduler.stores.expressions import decode

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

_WANTED = ("created_at", "generate_ms", "checkpoint", "images", "steps")
"""`steps` stands only in records whose client wrote it there."""
MILLISECONDS_FROM = 1e11
"""So many epoch seconds are 3,000 years away: a client wrote `created_at` in milliseconds, or something else."""


class DoneTask(NamedTuple):
    """One task: `sent_at_s` in epoch seconds; `steps` and `images` are 0, `checkpoint` is empty where not told."""

    sent_at_s: float
    service_s: float
    checkpoint: str
    steps: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one call brought."""

    tasks: tuple[DoneTask, ...]
    records: int
    """Records read for it, whatever their state."""
    read_units: float
    """What DynamoDB says that it cost; 0 where it says nothing."""


def pages(client: DynamoDBClient, table: str) -> Iterator[Page]:
    """Read the table once, as it is in passing; each call reads a megabyte. Raises Unavailable.

    A Scan costs half a read unit for each 4 KB of the table, however few of them are asked for.
    """
    names = {f"#{number}": name for number, name in enumerate(_WANTED)}
    begin: dict[str, Any] = {}
    while True:
        with understood(f"reading table {table}"):
            answer = client.scan(
                TableName=table,
                ProjectionExpression=", ".join(names),
                ExpressionAttributeNames=names,
                FilterExpression="attribute_exists(#0) AND attribute_exists(#1)",
                ReturnConsumedCapacity="TOTAL",
                **begin,
            )
            records = [decode(item) for item in answer["Items"]]
            page = Page(
                tasks=tuple(task for task in map(_task, records) if task is not None),
                records=int(answer["ScannedCount"]),
                read_units=float(answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)),
            )
            last = answer.get("LastEvaluatedKey")
        yield page
        if not last:
            return
        begin = {"ExclusiveStartKey": last}


def _task(record: Mapping[str, Any]) -> DoneTask | None:
    sent_at_s, generate_ms = record["created_at"], record["generate_ms"]
    if not is_number(sent_at_s) or not is_number(generate_ms) or not 0 <= sent_at_s < MILLISECONDS_FROM:
        return None
    if generate_ms <= 0:
        return None
    steps, images = record.get("steps"), record.get("images")
    return DoneTask(
        sent_at_s=float(sent_at_s),
        service_s=float(generate_ms) / 1000,
        checkpoint=str(record.get("checkpoint") or ""),
        steps=int(steps) if is_number(steps) and steps > 0 else 0,
        images=len(images) if isinstance(images, list) else 0,
    )
