"""What queue, table and bucket must look like, and how AWS's descriptions of them are read; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.aws.addresses import QueueAddress

DAY_S = 86400
VISIBILITY_S = 60
"""The longest lease there is: the fewest renewals."""
LEASE_RANGE_S = (5, 60)
QUEUE_RETENTION_S = 4 * DAY_S
DLQ_RETENTION_S = 14 * DAY_S
"""A dead letter keeps the age it had in its queue, so the dead-letter queue must keep messages longer."""
LONGEST_RETENTION_S = 28 * DAY_S
"""What SQS allows at most: 14 days in a queue, 14 more in its dead-letter queue."""
MAX_RECEIVE_COUNT = 50
MIN_RECEIVE_COUNT = 10
"""Below it, give-backs and duplicates would send healthy work to the dead-letter queue."""
KEY_NAMES = ("task_id", "taskId")
INDEX = "status-created_at-index"
INDEX_KEYS = {"HASH": ("status", "S"), "RANGE": ("created_at", "N")}
STATE_KEY = (("fleet", "HASH"), ("item", "RANGE"))
"""Key of the table of the fleet's state; both are strings."""
TTL_ATTRIBUTE = "expires_at"
NO_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """Where a queue's messages go after how many receives."""

    max_receive_count: int
    dlq: QueueAddress
    dlq_arn: str


def redrive(attributes: Mapping[str, str]) -> Redrive | None:
    """Read the redrive policy among a queue's attributes; None when there is none."""
    policy = json.loads(attributes.get("RedrivePolicy") or "{}")
    arn = policy.get("deadLetterTargetArn")
    if not arn:
        return None
    _, _, _, region, account, name = str(arn).split(":")
    dlq = QueueAddress(name=name, account=account, region=region)
    return Redrive(max_receive_count=int(policy["maxReceiveCount"]), dlq=dlq, dlq_arn=str(arn))


def redrive_policy(dlq_arn: str) -> str:
    """Return the redrive policy that a queue should have, as SQS takes it."""
    return json.dumps({"deadLetterTargetArn": dlq_arn, "maxReceiveCount": MAX_RECEIVE_COUNT})


def schema(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the key of a table or an index: attribute by role (HASH, RANGE)."""
    return {key["KeyType"]: key["AttributeName"] for key in description["KeySchema"]}


def attribute_types(table: Mapping[str, Any]) -> dict[str, str]:
    """Return the types (S, N, B) of the attributes that a table's keys and indexes use."""
    return {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}


def key_fault(table: Mapping[str, Any]) -> str | None:
    """Say why a table's key cannot serve, None when it can."""
    key, types = schema(table), attribute_types(table)
    name = key.get("HASH", "")
    if len(key) == 1 and name in KEY_NAMES and types.get(name) == "S":
        return None
    shown = ", ".join(f"{attribute} ({types.get(attribute)}, {role})" for role, attribute in key.items())
    return f"its key is {shown}, not task_id (S, HASH) alone"


def state_key_fault(table: Mapping[str, Any]) -> str | None:
    """Say why a table's key cannot serve the fleet's state, None when it can."""
    key, types = schema(table), attribute_types(table)
    if key == {role: name for name, role in STATE_KEY} and all(types.get(name) == "S" for name, _ in STATE_KEY):
        return None
    shown = ", ".join(f"{attribute} ({types.get(attribute)}, {role})" for role, attribute in key.items())
    return f"its key is {shown}, not fleet (S, HASH) and item (S, RANGE)"


def find_index(table: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the description of the index by status, None when there is none."""
    indexes: list[Mapping[str, Any]] = table.get("GlobalSecondaryIndexes") or []
    return next((index for index in indexes if index["IndexName"] == INDEX), None)


def index_fault(table: Mapping[str, Any]) -> str | None:
    """Say why the index by status that is there, or would be made, cannot serve; None when it can."""
    types = attribute_types(table)
    wanted = {role: attribute for role, (attribute, _) in INDEX_KEYS.items()}
    index = find_index(table)
    if index is not None and schema(index) != wanted:
        return f"its key is {schema(index)}, not {wanted}"
    wrong = [name for name, kind in INDEX_KEYS.values() if types.get(name, kind) != kind]
    return f"the table defines {' and '.join(wrong)} with another type" if wrong else None


def record_lifetime_fault(record_ttl_days: int, retention_s: int) -> str | None:
    """Say so when a record may vanish before the last copy of its message, which would be rendered again."""
    if record_ttl_days * DAY_S > retention_s:
        return None
    return f"records are kept {record_ttl_days} days, copies of a message up to {retention_s / DAY_S:g}"


def bucket_region(answer: Mapping[str, Any]) -> str | None:
    """Return the region that S3 tells in any answer about a bucket, a refusal included; None when it does not."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})  # an answer that never came has neither
    region: str | None = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    return region
