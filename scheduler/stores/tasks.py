"""Task records in DynamoDB: the claim that decides who runs a task, and the ends a task may have.

Every write is conditional. A claim is held by `owner` (a nonce of that claim) and `attempt` (a fence that only
grows); `lease_until` says when others may take it, and is never compared by the holder itself: a lease that ran out
but was not taken is still the holder's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from scheduler.aws.shape import INDEX as INDEX  # noqa: PLC0414 - re-exported: whoever makes a table for the store
from scheduler.domain.claiming import Refusal, Refused, is_number, judge
from scheduler.domain.errors import Counts, LeaseLost
from scheduler.domain.ports import Clock
from scheduler.domain.task import Claim, Failure, Message, Progress, Result, Task
from scheduler.stores.claim_updates import ENDED, UNMARKED, Claiming
from scheduler.stores.end_updates import RUN_STATE, SHOWN, Ending, failure_items, result_items
from scheduler.stores.expressions import Update
from scheduler.stores.record_table import ConditionFailed, RecordTable

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

HELD = "{owner} = {:owner} AND {attempt} = {:attempt}"
JOB = ("comfy_job_id", "comfy_job_at")


class DynamoTaskStore:
    """The records of one table; `key_name` is what the table calls a task's id.

    `address` turns an image's key into the address that clients are given. Renewals go through their own client,
    so that no other call stands before them.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        keeper_client: DynamoDBClient,
        table: str,
        *,
        key_name: str,
        clock: Clock,
        address: Callable[[str], str],
        worker: str,
        instance_id: str = "",
        max_runs: int,
        record_ttl_days: int,
    ) -> None:
        self._table = RecordTable(client, table, key_name=key_name)
        self._keeper_table = RecordTable(keeper_client, table, key_name=key_name)
        self._clock = clock
        self._address = address
        self._worker = worker
        self._instance_id = instance_id
        self._host = instance_id or worker
        self._max_runs = max_runs
        self._record_ttl_days = record_ttl_days
        self._renewed: set[str] = set()
        """Owners of claims that were renewed: only they, or holders before them, left anything of `RUN_STATE`."""

    def read(self, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the records that exist among at most 100 ids, read consistently. Raises Unavailable."""
        return self._table.read(task_ids)

    def claim(self, task: Task, message: Message, *, owner: str, lease_s: float) -> Claim | Refused:
        """Take the right to run `task`, counting one run; or say why not.

        Raises Unavailable when DynamoDB does not answer; the claim may then hold, and calling again with the same
        `owner` finds that out.
        """
        claiming = Claiming(
            task=task,
            message=message,
            owner=owner,
            worker=self._worker,
            instance_id=self._instance_id,
            now=self._clock.now(),
            lease_s=lease_s,
            max_runs=self._max_runs,
            key_name=self._table.key_name,
        )
        answer: Mapping[str, Any] | Unclaimed
        if message.receive_count == 1:
            answer = self._try_claim(task.task_id, claiming.first(), returns="NONE")
            if not isinstance(answer, Unclaimed):
                return Claim(task_id=task.task_id, owner=owner, attempt=1, run_no=1, runs=1)
        else:
            answer = self._try_claim(task.task_id, claiming.again())
        for attempt in range(3):
            if not isinstance(answer, Unclaimed):
                return _claim_of(task.task_id, answer, self._host)
            reason = judge(
                answer.record,
                task=task,
                message=message,
                owner=owner,
                now=self._clock.now(),
                max_runs=self._max_runs,
            )
            if reason is Refusal.OURS and answer.record is not None:
                ours = _claim_of(task.task_id, answer.record, self._host)
                if attempt > 0 or self._prolongs(ours, answer.record, lease_s):
                    return ours
            elif reason not in {Refusal.CHANGED, Refusal.RESENT, Refusal.REUSED}:
                return Refused(reason, answer.record)
            claiming = replace(claiming, now=self._clock.now())
            answer = self._try_claim(task.task_id, claiming.after(reason, answer.record or {}))
        if not isinstance(answer, Unclaimed):
            return _claim_of(task.task_id, answer, self._host)
        return Refused(Refusal.CHANGED, answer.record)  # it keeps changing under the claim, and may come again

    def _prolongs(self, ours: Claim, record: Mapping[str, Any], lease_s: float) -> bool:
        """Start the lease of a claim anew whose answer was lost, for its holder counts it from this call on.

        False when it has run out before we heard of it, or was taken: then it is claimed anew where that is allowed.
        """
        if float(record["lease_until"]) <= self._clock.now():
            return False
        try:
            self._renew(ours, None, lease_s=lease_s, progress=None)
        except ConditionFailed:
            return False
        return True

    def _try_claim(
        self, task_id: str, update: Update, *, returns: Literal["ALL_NEW", "NONE"] = "ALL_NEW"
    ) -> Mapping[str, Any] | Unclaimed:
        """Return the record as the claim made it (the whole, for `tries` is not updated here), or what refused it."""
        try:
            return self._table.write(task_id, update, doing="claiming", returns=returns)
        except ConditionFailed as refused:
            return Unclaimed(refused.record)

    def renew(self, claim: Claim, *, lease_s: float, progress: Progress | None, job_id: str | None = None) -> bool:
        """Extend the lease from now and write how far the run is; return whether cancellation was asked for.

        Raises LeaseLost when another holds the claim, Unavailable when DynamoDB does not answer.
        """
        try:
            self._renew(claim, UNMARKED, lease_s=lease_s, progress=progress, job_id=job_id)
        except ConditionFailed as refused:
            # A renewal brings nothing back unless its condition fails, which the mark of a cancellation makes it do.
            if not _is_held(refused.record, claim, "processing"):
                self._renewed.discard(claim.owner)
                raise LeaseLost(str(refused)) from refused
        else:
            return False
        with _lost_where_refused():
            self._renew(claim, None, lease_s=lease_s, progress=progress, job_id=job_id)
        return True

    def _renew(
        self,
        claim: Claim,
        condition: str | None,
        *,
        lease_s: float,
        progress: Progress | None,
        job_id: str | None = None,
    ) -> None:
        """Send one renewal. Raises ConditionFailed, Unavailable."""
        self._renewed.add(claim.owner)
        update = Update().set(lease_until=self._clock.now() + lease_s)
        if progress is not None:
            update.set(progress=progress.percent, step=progress.step, eta_s=progress.eta_s)
            if progress.node is not None:
                update.set(node=progress.node)
            if progress.preview_key is not None:
                update.set(preview_key=progress.preview_key)
        if job_id is not None:
            update.set(comfy_job_id=job_id, comfy_job_at=self._host)
        update.when(HELD + " AND {status} = {:status}", **_holder(claim), status="processing")
        if condition is not None:
            update.when(condition, no=False)
        self._keeper_table.write(claim.task_id, update, doing="renewing the claim on")

    def release(self, claim: Claim, *, counts: Counts) -> None:
        """Write `pending`, refunding the run unless it was spent. Raises LeaseLost, Unavailable."""
        now = self._clock.now()
        update = Update().set(status="pending", updated_at=int(now)).remove("lease_until", *SHOWN)
        if counts is not Counts.RUN:
            update.add(runs=-1)
        if counts is not Counts.NOTHING:
            update.remove(*JOB)
        if counts is Counts.TRY:
            update.add(tries=1).set_once(first_try_at=int(now))
        update.when(HELD + " AND {status} = {:status}", **_holder(claim), status="processing")
        try:
            self._table.write(claim.task_id, update, doing="releasing")
        except ConditionFailed as refused:
            # Sent twice by the client library, the second meets what the first wrote: that is success.
            if not _is_held(refused.record, claim, "pending"):
                raise LeaseLost(str(refused)) from refused
        self._renewed.discard(claim.owner)

    def complete(self, claim: Claim, task: Task, result: Result) -> None:
        """Write the good end. Raises LeaseLost, Unavailable; calling it again does no harm."""
        addresses = [self._address(image.key) for image in result.images]
        ended = self._ending().ended("completed", task.format, addresses=addresses, error="")
        self._end(claim, ended.set(**result_items(result)), is_marked=False)

    def fail(self, claim: Claim, task: Task, failure: Failure) -> None:
        """Write the bad end with its reason. Raises LeaseLost, Unavailable."""
        ended = self._ending().ended("failed", task.format, error=failure.message)
        self._end(claim, ended.set(**failure_items(failure)), is_marked=False)

    def cancelled(self, claim: Claim, task: Task) -> None:
        """Write the end of a task whose cancellation was asked for. Raises LeaseLost, Unavailable."""
        self._end(claim, self._ending().ended("cancelled", task.format, error="cancelled"), is_marked=True)

    def _end(self, claim: Claim, ended: Update, *, is_marked: bool) -> None:
        """Write an end, on a record that may be marked for cancellation. Raises LeaseLost, Unavailable."""
        if claim.attempt > 1 or claim.owner in self._renewed or is_marked:
            ended.remove(*RUN_STATE)
        ended.when(HELD, **_holder(claim))
        with _lost_where_refused():
            self._table.write(claim.task_id, ended, doing="finishing")
        self._renewed.discard(claim.owner)

    def _ending(self) -> Ending:
        return Ending(now=self._clock.now(), record_ttl_days=self._record_ttl_days)

    def close_unclaimed(self, task_id: str, record: Mapping[str, Any], status: str, failure: Failure | None) -> bool:
        """Write an end on a record that nobody holds, as `record` showed it; return False if it has changed since.

        For a task whose runs are spent, whose holder died after cancellation was asked for, or whose request, in
        the record, makes no sense. Raises Unavailable.
        """
        update = self._ending().closed(record, status, failure, key_name=self._table.key_name)
        return self._table.write_if_allowed(task_id, update, doing="closing")

    def announced(self, task_id: str, *, attempt: int | None) -> None:
        """Note that the end written under `attempt` was told to those who are to know; once noted, it stays.

        A record that shows another end by now, or none, is left alone. Raises Unavailable.
        """
        update = Update().set(announced_at=int(self._clock.now()))
        update.when("attribute_not_exists({announced_at})")
        update.when(ENDED, completed="completed", failed="failed", cancelled="cancelled")
        if attempt is None:
            update.when("attribute_not_exists({attempt})")
        else:
            update.when("{attempt} = {:attempt}", attempt=attempt)
        self._table.write_if_allowed(task_id, update, doing="noting the announcement of")


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """The record that did not allow a claim, None when there is none."""

    record: Mapping[str, Any] | None


def _holder(claim: Claim) -> dict[str, Any]:
    return {"owner": claim.owner, "attempt": claim.attempt}


def _is_held(record: Mapping[str, Any] | None, claim: Claim, status: str) -> bool:
    """Tell whether `record` names the holder of `claim`, and has this status."""
    if record is None or record.get("status") != status:
        return False
    return record.get("owner") == claim.owner and record.get("attempt") == claim.attempt


@contextmanager
def _lost_where_refused() -> Iterator[None]:
    """Stand around a write that the record allows as long as it names the holder."""
    try:
        yield
    except ConditionFailed as refused:
        raise LeaseLost(str(refused)) from refused


def _claim_of(task_id: str, record: Mapping[str, Any], host: str) -> Claim:
    """Return the claim that a record shows; what others wrote into the numbers that it does not set counts as absent.

    A job is taken up again only on the `host` that posted it: to another engine its id says nothing.
    """
    run_no, tries, since = (record.get(name) for name in ("run_no", "tries", "first_try_at"))
    return Claim(
        task_id=task_id,
        owner=str(record["owner"]),
        attempt=int(record["attempt"]),
        run_no=int(run_no) if is_number(run_no) else 1,
        runs=int(record["runs"]),
        tries=int(tries) if is_number(tries) else 0,
        first_try_at_s=float(since) if is_number(since) else None,
        job_id=record.get("comfy_job_id") if record.get("comfy_job_at") == host else None,
    )
