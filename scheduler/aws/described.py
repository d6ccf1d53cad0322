"""AWS's descriptions of queue, table and bucket, each read whole as soon as it comes; pure.

Reading one of another shape raises one of `answers.UNREADABLE`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.aws.addresses import QueueAddress

_UNITS = ("ReadCapacityUnits", "WriteCapacityUnits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """Where a queue's messages go after how many receives."""

    max_receive_count: int
    dlq: QueueAddress
    dlq_arn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue as SQS describes it."""

    url: str
    arn: str
    visibility_s: int
    retention_s: int
    redrive: Redrive | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A secondary index; `key` is its attributes by role (HASH, RANGE)."""

    name: str
    key: Mapping[str, str]
    status: str
    projection: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; `key` is as of an index, `types` (S, N, B) are those of the attributes that keys and indexes use.

    `provisioned` are the capacity units of a table that is billed by them, None when it is billed by request.
    """

    status: str
    key: Mapping[str, str]
    types: Mapping[str, str]
    indexes: tuple[Index, ...]
    provisioned: Mapping[str, int] | None

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is being made or changed."""
        return self.status == "ACTIVE" and all(index.status == "ACTIVE" for index in self.indexes)


def read_queue(url: str, attributes: Mapping[Any, str]) -> Queue:
    """Read all attributes of the queue at `url`."""
    return Queue(
        url=url,
        arn=attributes["QueueArn"],
        visibility_s=int(attributes["VisibilityTimeout"]),
        retention_s=int(attributes["MessageRetentionPeriod"]),
        redrive=_read_redrive(attributes.get("RedrivePolicy")),
    )


def _read_redrive(written: str | None) -> Redrive | None:
    policy = json.loads(written or "{}")
    arn = policy.get("deadLetterTargetArn")
    if not arn:
        return None
    _, _, _, region, account, name = str(arn).split(":")
    dlq = QueueAddress(name=name, account=account, region=region)
    return Redrive(max_receive_count=int(policy["maxReceiveCount"]), dlq=dlq, dlq_arn=str(arn))


def read_table(description: Mapping[str, Any]) -> Table:
    """Read what DescribeTable tells of a table."""
    is_by_request = description.get("BillingModeSummary", {}).get("BillingMode") == "PAY_PER_REQUEST"
    return Table(
        status=description["TableStatus"],
        key=_read_key(description),
        types={entry["AttributeName"]: entry["AttributeType"] for entry in description["AttributeDefinitions"]},
        indexes=tuple(
            Index(
                name=index["IndexName"],
                key=_read_key(index),
                status=index["IndexStatus"],
                projection=index["Projection"]["ProjectionType"],
            )
            for index in description.get("GlobalSecondaryIndexes") or []
        ),
        provisioned=None if is_by_request else {unit: description["ProvisionedThroughput"][unit] for unit in _UNITS},
    )


def _read_key(description: Mapping[str, Any]) -> dict[str, str]:
    return {key["KeyType"]: key["AttributeName"] for key in description["KeySchema"]}


def read_expiry(answer: Mapping[str, Any]) -> str | None:
    """Return the attribute by which a table's items expire, None when they do not."""
    found = answer["TimeToLiveDescription"]
    return str(found["AttributeName"]) if found.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"} else None


def read_public_access(answer: Mapping[str, Any]) -> bool:
    """Tell whether a bucket is wholly closed to the public."""
    blocked = answer["PublicAccessBlockConfiguration"]
    return len(blocked) == 4 and all(blocked.values())


def bucket_region(answer: Mapping[str, Any]) -> str | None:
    """Return the region that S3 tells in any answer about a bucket, a refusal included; None when it does not."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})  # an answer that never came has neither
    region: str | None = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    return region
