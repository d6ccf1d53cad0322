"""What an error costs a task and when it is tried again: decisions as data, no queue touched."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.domain.errors import Counts, EngineDown, Fatal, OutOfMemory, Rejected, SchedulerError, Transient
from scheduler.domain.task import Claim, Failure

MAX_BACKOFF_S = 300.0
"""No message waits longer than this, so that a mended world is noticed within five minutes."""
FIRST_BACKOFF_S = 5.0
FIRST_LACKING_S = 30.0
"""First wait of a task that this host cannot run but another may."""
MAX_TRIES = 5
MIN_TRYING_S = 600.0
"""A task whose own input keeps failing is failed after `MAX_TRIES`, but never before this much time."""
MOST_DELIVERIES = 45
"""Deliveries of a task that cannot be run before its message is kept for a person, or it fails; at 50 SQS would take it
away unexplained."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Write the failure, delete the message."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Release the claim at this cost, and show the message again after `delay_s`."""

    delay_s: float
    counts: Counts


def backoff_s(times: int, first_s: float = FIRST_BACKOFF_S) -> float:
    """Return `first_s` doubled for every time after the first, at most `MAX_BACKOFF_S`."""
    return min(MAX_BACKOFF_S, first_s * 2.0 ** min(max(0, times - 1), 16))


def decide(
    error: SchedulerError, claim: Claim, *, max_runs: int, now: float, receive_count: int = 1
) -> Fail | GiveBack:
    """Say what becomes of a claimed task after `error`; `claim.runs` counts the run that failed.

    What costs the task nothing is tried again the later, the more often it was delivered (`receive_count`), and ends
    before SQS would take its message away unexplained; an engine that is down, or at a render of hours, ends none.

    Raises the error itself when it is of a kind that never reaches a task (a bug, not a failure).
    """
    match error:
        case Rejected():
            return Fail(Failure(kind=error.kind, message=error.message, field=error.field, engine=error.engine))
        case OutOfMemory():
            return Fail(Failure(kind=error.kind, message=error.message, engine=error.engine))
        case Transient() | Fatal():
            counts = error.counts if isinstance(error, Transient) else Counts.RUN
            if counts is Counts.RUN and claim.runs >= max_runs:
                said = f"{error.message} (run {claim.runs} of {max_runs}, the last)"
                return Fail(Failure(kind=error.kind, message=said, engine=error.engine))
            if counts is Counts.TRY:
                tries, since = claim.tries + 1, claim.first_try_at_s
                if tries >= MAX_TRIES and since is not None and now - since >= MIN_TRYING_S:
                    return Fail(Failure(kind=error.kind, message=f"{error.message} (try {tries})", field=error.field))
                return GiveBack(backoff_s(tries, FIRST_LACKING_S), counts)
            if counts is Counts.NOTHING and receive_count >= MOST_DELIVERIES and not isinstance(error, EngineDown):
                said = f"{error.message} (nothing came of {receive_count} deliveries; send it again)"
                return Fail(Failure(kind=error.kind, message=said, engine=error.engine))
            times = max(claim.runs, receive_count) if counts is Counts.NOTHING else claim.runs
            return GiveBack(backoff_s(times), counts)
        case _:
            raise error
