"""What queue and table must look like, and what is wrong with those that do not; pure."""

from __future__ import annotations

import json

from scheduler.aws.described import Index, Table

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


def redrive_policy(dlq_arn: str) -> str:
    """Return the redrive policy that a queue should have, as SQS takes it."""
    return json.dumps({"deadLetterTargetArn": dlq_arn, "maxReceiveCount": MAX_RECEIVE_COUNT})


def key_fault(table: Table) -> str | None:
    """Say why a table's key cannot serve the task records, None when it can."""
    name = table.key.get("HASH", "")
    if len(table.key) == 1 and name in KEY_NAMES and table.types.get(name) == "S":
        return None
    return f"its key is {_shown_key(table)}, not task_id (S, HASH) alone"


def state_key_fault(table: Table) -> str | None:
    """Say why a table's key cannot serve the fleet's state, None when it can."""
    are_strings = all(table.types.get(name) == "S" for name, _ in STATE_KEY)
    if table.key == {role: name for name, role in STATE_KEY} and are_strings:
        return None
    return f"its key is {_shown_key(table)}, not fleet (S, HASH) and item (S, RANGE)"


def _shown_key(table: Table) -> str:
    return ", ".join(f"{attribute} ({table.types.get(attribute)}, {role})" for role, attribute in table.key.items())


def find_index(table: Table) -> Index | None:
    """Return the index by status, None when there is none."""
    return next((index for index in table.indexes if index.name == INDEX), None)


def index_fault(table: Table) -> str | None:
    """Say why the index by status that is there, or would be made, cannot serve; None when it can."""
    wanted = {role: attribute for role, (attribute, _) in INDEX_KEYS.items()}
    index = find_index(table)
    if index is not None and index.key != wanted:
        return f"its key is {index.key}, not {wanted}"
    wrong = [name for name, kind in INDEX_KEYS.values() if table.types.get(name, kind) != kind]
    return f"the table defines {' and '.join(wrong)} with another type" if wrong else None


def record_lifetime_fault(record_ttl_days: int, retention_s: int) -> str | None:
    """Say so when a record may vanish before the last copy of its message, which would be rendered again."""
    if record_ttl_days * DAY_S > retention_s:
        return None
    return f"records are kept {record_ttl_days} days, copies of a message up to {retention_s / DAY_S:g}"
