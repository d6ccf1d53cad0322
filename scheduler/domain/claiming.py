"""Why a claim was refused, read from the record that refused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeGuard

from scheduler.domain.retry import MAX_BACKOFF_S
from scheduler.domain.task import Format, Message, Task


class Refusal(StrEnum):
    """What a conditional claim ran into."""

    OURS = "ours"
    """An earlier send of this very claim was applied: it is no refusal."""
    DUPLICATE = "duplicate"
    """The task has its end: delete the message."""
    RESENT = "resent"
    """It failed, and the message was sent after that: claim it anew, runs reset."""
    REUSED = "reused"
    """Its client chose the id once more, for another message than the one that ended: claim it as a new run."""
    ELSEWHERE = "elsewhere"
    """Another worker holds a live lease: put the message back."""
    CONFLICT = "conflict"
    """The id belongs to another request: refuse the message, leave the record alone."""
    CANCELLED = "cancelled"
    """Cancellation was asked for and nobody holds it: write the end."""
    EXHAUSTED = "exhausted"
    """Its runs are spent: write the failure."""
    MISSING = "missing"
    """The message points at a record that is not there."""
    CHANGED = "changed"
    """The record would allow the claim by now: try again."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal and the record's attributes that explain it (None when there is no record)."""

    reason: Refusal
    record: Mapping[str, Any] | None


NUMBERS = ("attempt", "eta_s", "finished_at", "first_try_at", "lease_until", "run_no", "runs", "tries")
TEXTS = ("status", "taskStatus", "format", "message_id")
FINAL = frozenset({"completed", "failed", "cancelled"})
REUSABLE = tuple(form.value for form in Format if form.is_eks)
"""The formats whose ids come again, as a record names them."""


def is_number(value: object) -> TypeGuard[int | float | Decimal]:
    """Tell whether an attribute is a number to DynamoDB, for which true and false are none."""
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _is_foreign(record: Mapping[str, Any]) -> bool:
    """Tell whether attributes of ours have types that we never write: no condition of a claim could ever hold."""
    return any(not is_number(record[name]) for name in NUMBERS if name in record) or any(
        not isinstance(record[name], str) for name in TEXTS if name in record
    )


def judge(
    record: Mapping[str, Any] | None, *, task: Task, message: Message, owner: str, now: float, max_runs: int
) -> Refusal:
    """Read from the `record` that failed a claim's condition what to do with the message.

    When the message was sent is by SQS's clock, `now` this host's wall clock, in epoch seconds.
    """
    if record is None:
        return Refusal.MISSING if task.by_reference else Refusal.CHANGED
    if _is_foreign(record):
        return Refusal.CONFLICT
    status = record.get("status")
    if record.get("owner") == owner and status == "processing":
        return Refusal.OURS
    if task.format.is_eks and status in FINAL and record.get("format") in REUSABLE:
        return Refusal.REUSED if _is_another(record, message) else Refusal.DUPLICATE
    if record.get("fingerprint", task.fingerprint) != task.fingerprint:
        return Refusal.CONFLICT
    if not task.by_reference and "requestData" in record:
        return Refusal.CONFLICT  # the id is that of a request which lies in its record
    if status == "failed" and message.sent_at_s > float(record.get("finished_at", 0)):
        return Refusal.RESENT
    if status in FINAL or (status is None and record.get("taskStatus", "waiting") != "waiting"):
        return Refusal.DUPLICATE
    if status not in {None, "pending", "processing"} or (status == "processing" and "lease_until" not in record):
        return Refusal.CONFLICT  # no record of ours, so that no claim can ever succeed on it
    if status == "processing" and float(record.get("lease_until", 0)) > now:
        return Refusal.ELSEWHERE
    if record.get("cancel_requested", False) is not False:  # whatever else is there: a claim asks for no mark at all
        return Refusal.CANCELLED
    if record.get("runs", 0) >= max_runs:
        return Refusal.EXHAUSTED
    return Refusal.CHANGED


def messages_of(record: Mapping[str, Any]) -> list[str]:
    """Return the messages that the newest runs of a record belong to, the last first, as far as it names them."""
    earlier = record.get("earlier_messages", [])
    return [record["message_id"], *(earlier if isinstance(earlier, list) else [])]


def _is_another(record: Mapping[str, Any], message: Message) -> bool:
    """Tell whether `message` is none of those that a record with its end belongs to.

    A record that was cancelled before anybody claimed it names none: its message was sent before that.
    """
    if "message_id" in record:
        return message.identity not in messages_of(record)
    return message.sent_at_s > float(record.get("finished_at", 0))


def wait_elsewhere_s(record: Mapping[str, Any], *, now: float, lease_s: float, receive_count: int) -> float:
    """Return how long a duplicate of a task that runs elsewhere stays away, in seconds.

    It is the longer of the lease that is left and the expected end, doubled for each time the message came, at
    most five minutes. A holder that lives renews at a sixth of the lease (`lease_s`): where less than half is left it
    is probably dead, and the message need only wait for the lease to run out.
    """
    left = max(float(record.get("lease_until", now)) - now, 1.0)
    if left < lease_s / 2:
        return left
    left = max(left, float(record.get("eta_s", 0)))
    return min(MAX_BACKOFF_S, left * 2.0 ** min(max(0, receive_count - 1), 9))
