"""What EC2 announces about an instance: each of its documents read into notices of one kind; pure.

A document that cannot be read is never an error here: the reading then holds a fault, which the caller logs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

INSTANCE_ACTION = "spot/instance-action"
TERMINATION_TIME = "spot/termination-time"
REBALANCE = "events/recommendations/rebalance"
MAINTENANCE = "events/maintenance/scheduled"
LIFECYCLE_STATE = "autoscaling/target-lifecycle-state"

ASG_GRACE_S = 120.0
"""How long an Auto Scaling group is taken to wait for an instance that it ends; the metadata does not say.

With a lifecycle hook it waits 30 s to two hours, as the hook says, and longer when asked (`aws/lifecycle_hook.py`);
without one it does not wait at all, and then no figure helps. Two minutes is what all this has to manage anyway, for
Spot gives no more.
"""

PAST_STATES = frozenset({"completed", "canceled"})
MAX_TEXT_CHARS = 200


class Kind(StrEnum):
    """Who wants the instance, the most urgent first."""

    INTERRUPTION = "interruption"
    """EC2 takes a Spot instance back."""
    ASG_TERMINATE = "asg-terminate"
    """Its Auto Scaling group ends it, for whatever reason."""
    MAINTENANCE = "maintenance"
    """Its hardware is to be stopped, restarted or retired."""
    REBALANCE = "rebalance"
    """EC2 thinks an interruption likely, at no stated time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One announcement. Times are epoch seconds."""

    kind: Kind
    id: str
    """The same for the same announcement, however often and by whichever document it is read."""
    at_s: float
    """When it was read here first."""
    deadline_s: float | None
    """When the instance may be gone; None when nothing says."""
    action: str
    """What is to be done to the instance, in EC2's word: ``terminate``, ``stop``, ``system-reboot`` and so on."""
    detail: str
    """The announcement in a line, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a document says, and what in it could not be understood (empty when all could)."""

    notices: tuple[Notice, ...] = ()
    fault: str = ""


Read = Callable[[str, float], Reading]
"""A document and the present time (epoch seconds) to what it says."""


class _Unreadable(Exception):
    """The document is not what AWS describes."""


def read_instance_action(document: str, now_s: float) -> Reading:
    """Read ``spot/instance-action``: what EC2 will do to a Spot instance, and when.

    Hibernation begins at once, whatever time is given: AWS announces it, but not ahead.
    """
    try:
        said = _object(document)
        action, time = _text(said, "action"), _text(said, "time")
        notice = _interruption(action, time, now_s)
    except _Unreadable as error:
        return Reading(fault=str(error))
    return Reading(notices=(notice,))


def read_termination_time(document: str, now_s: float) -> Reading:
    """Read ``spot/termination-time``, the older form of the same announcement.

    AWS says that it may hold what is no time when nothing is announced, so that is no fault.
    """
    try:
        return Reading(notices=(_interruption("terminate", document.strip(), now_s),))
    except _Unreadable:
        return Reading()


def read_rebalance(document: str, now_s: float) -> Reading:
    """Read ``events/recommendations/rebalance``: since when EC2 thinks an interruption likely."""
    try:
        time = _text(_object(document), "noticeTime")
        _iso_s(time)
    except _Unreadable as error:
        return Reading(fault=str(error))
    notice = Notice(
        kind=Kind.REBALANCE,
        id=_id(Kind.REBALANCE, {"noticeTime": time}),
        at_s=now_s,
        deadline_s=None,
        action="rebalance",
        detail=f"an interruption is likely, said at {time}",
    )
    return Reading(notices=(notice,))


def read_maintenance(document: str, now_s: float) -> Reading:
    """Read ``events/maintenance/scheduled``: a list of events, past and cancelled ones among them, which are passed
    over.

    One event that cannot be read does not hide the others.
    """
    try:
        events = _json(document)
    except _Unreadable as error:
        return Reading(fault=str(error))
    if not isinstance(events, list):
        return Reading(fault="it is not a list of events")
    notices, faults = [], []
    for event in events:
        if not isinstance(event, dict):
            faults.append("an event is not an object")
        elif str(event.get("State")) not in PAST_STATES:
            try:
                notices.append(_maintenance(event, now_s))
            except _Unreadable as error:
                faults.append(str(error))
    return Reading(notices=tuple(notices), fault="; ".join(faults))


def read_lifecycle_state(document: str, now_s: float, *, grace_s: float = ASG_GRACE_S) -> Reading:
    """Read ``autoscaling/target-lifecycle-state``: the one word that says where the group wants the instance.

    Only its end is a notice. `grace_s` is how long the group is taken to wait, counted from the first reading.
    """
    state = document.strip()
    if state.rpartition(":")[2] != "Terminated":  # Warmed:Terminated is the end of an instance in a warm pool
        return Reading()
    notice = Notice(
        kind=Kind.ASG_TERMINATE,
        id=_id(Kind.ASG_TERMINATE, {"state": state}),
        at_s=now_s,
        deadline_s=now_s + grace_s,
        action="terminate",
        detail=f"its Auto Scaling group wants it in state {state}",
    )
    return Reading(notices=(notice,))


def _interruption(action: str, time: str, now_s: float) -> Notice:
    deadline_s = _iso_s(time)
    return Notice(
        kind=Kind.INTERRUPTION,
        id=_id(Kind.INTERRUPTION, {"action": action, "time": deadline_s}),
        at_s=now_s,
        deadline_s=min(now_s, deadline_s) if action == "hibernate" else deadline_s,
        action=action,
        detail=f"Spot interruption: {action} at {time}",
    )


def _maintenance(event: Mapping[str, Any], now_s: float) -> Notice:
    event_id, code, begins = _text(event, "EventId"), _text(event, "Code"), _text(event, "NotBefore")
    deadline_s = _date_s(begins)
    return Notice(
        kind=Kind.MAINTENANCE,
        # Another time makes it another notice; another description, or another end, does not.
        id=_id(Kind.MAINTENANCE, {"EventId": event_id, "Code": code, "NotBefore": deadline_s}),
        at_s=now_s,
        deadline_s=deadline_s,
        action=code,
        detail=f"{code} not before {begins} ({event_id})",
    )


def _id(kind: Kind, document: Mapping[str, Any]) -> str:
    canonical = json.dumps([kind.value, document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _json(document: str) -> Any:
    try:
        return json.loads(document)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"it is not JSON: {error}") from error


def _object(document: str) -> Mapping[str, Any]:
    said = _json(document)
    if not isinstance(said, dict):
        raise _Unreadable("it is not an object")
    return said


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT_CHARS:
        raise _Unreadable(f"{name} is {value!r:.100}")
    if not (value.isascii() and value.isprintable()):
        raise _Unreadable(f"{name} is {value!r:.100}")
    return value


def _iso_s(text: str) -> float:
    """Return a time such as 2027-09-18T08:22:00Z as epoch seconds; without a zone it is UTC, as AWS writes them."""
    if "T" not in text:
        raise _Unreadable(f"{text!r:.100} is no time")
    try:
        return _epoch_s(datetime.fromisoformat(text))
    except ValueError as error:
        raise _Unreadable(f"{text!r:.100} is no time") from error


def _date_s(text: str) -> float:
    """Return a date such as 21 Jan 2027 09:00:43 GMT, whatever the locale, as epoch seconds."""
    try:
        return _epoch_s(parsedate_to_datetime(text))
    except (ValueError, OverflowError) as error:
        raise _Unreadable(f"{text!r:.100} is no date") from error


def _epoch_s(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
