"""Task records in DynamoDB: the claim that decides who runs a task, and the ends a task may have.

Every write is conditional. A claim is held by `owner` (a nonce of that claim) and `attempt` (a fence that only
grows); `lease_until` says when others may take it, and is never compared by the holder itself: a lease that ran out
but was not taken is still the holder's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from scheduler.aws.answers import require_aws, understood
from scheduler.aws.errors import code_of
from scheduler.aws.shape import INDEX as INDEX  # noqa: PLC0414 - re-exported: whoever makes a table for the store
from scheduler.aws.shape import KEY_NAMES
from scheduler.domain.claiming import Refusal, Refused, is_number, judge
from scheduler.domain.ends import image_item
from scheduler.domain.errors import Counts, LeaseLost, Unavailable
from scheduler.domain.ports import Clock
from scheduler.domain.task import Claim, Failure, Format, Message, Progress, Result, Task
from scheduler.stores.claim_updates import ENDED, FREE, UNMARKED, Claiming, format_of
from scheduler.stores.expressions import Update, decode, encode
from scheduler.wire import job_api, predecessor

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

HELD = "{owner} = {:owner} AND {attempt} = {:attempt}"
SHOWN = ("progress", "step", "eta_s", "node", "preview_key")
"""How far a run is, for people."""
RUN_STATE = (*SHOWN, "cancel_requested")
JOB = ("comfy_job_id", "comfy_job_at")
MAX_MESSAGE_CHARS = 1000
_DAY_S = 86400


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
        self._client = client
        self._keeper_client = keeper_client
        self._table = table
        self._key_name = key_name
        self._clock = clock
        self._address = address
        self._worker = worker
        self._instance_id = instance_id
        self._host = instance_id or worker
        self._max_runs = max_runs
        self._ttl_s = record_ttl_days * _DAY_S
        self._renewed: set[str] = set()
        """Owners of claims that were renewed: only they, or holders before them, left anything of `RUN_STATE`."""

    def read(self, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the records that exist among at most 100 ids, read consistently. Raises Unavailable."""
        keys = [self._key(task_id) for task_id in dict.fromkeys(task_ids)]
        found: dict[str, dict[str, Any]] = {}
        while keys:
            with understood(f"reading {len(keys)} records of table {self._table}"):
                answer = self._client.batch_get_item(RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}})
                items: list[dict[str, Any]] = answer["Responses"].get(self._table) or []
                found |= {record[self._key_name]: record for record in map(decode, items)}
                unprocessed: Mapping[str, Any] = answer["UnprocessedKeys"]
                keys = [dict(key) for key in unprocessed.get(self._table, {}).get("Keys", [])]
            if keys and not items:
                raise Unavailable(f"table {self._table} is throttled: {len(keys)} records unread")
        return found

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
            key_name=self._key_name,
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
        except LeaseLost:
            return False
        return True

    def _try_claim(
        self, task_id: str, update: Update, *, returns: Literal["ALL_NEW", "NONE"] = "ALL_NEW"
    ) -> Mapping[str, Any] | Unclaimed:
        """Return the record as the claim made it (the whole, for `tries` is not updated here), or what refused it."""
        try:
            return self._write(task_id, update, doing="claiming", returns=returns)
        except LeaseLost as refused:
            return Unclaimed(_record_of(refused))

    def renew(self, claim: Claim, *, lease_s: float, progress: Progress | None, job_id: str | None = None) -> bool:
        """Extend the lease from now and write how far the run is; return whether cancellation was asked for.

        Raises LeaseLost when another holds the claim, Unavailable when DynamoDB does not answer.
        """
        try:
            self._renew(claim, UNMARKED, lease_s=lease_s, progress=progress, job_id=job_id)
        except LeaseLost as lost:
            # A renewal brings nothing back unless its condition fails, which the mark of a cancellation makes it do.
            record = _record_of(lost)
            if not (record and _is_held(record, claim) and record.get("status") == "processing"):
                self._renewed.discard(claim.owner)
                raise
        else:
            return False
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
        self._write(claim.task_id, update, doing="renewing the claim on", client=self._keeper_client)

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
            self._write(claim.task_id, update, doing="releasing")
        except LeaseLost as lost:
            # Sent twice by the client library, the second meets what the first wrote: that is success.
            record = _record_of(lost)
            if not (record and _is_held(record, claim) and record.get("status") == "pending"):
                raise
        self._renewed.discard(claim.owner)

    def complete(self, claim: Claim, task: Task, result: Result) -> None:
        """Write the good end. Raises LeaseLost, Unavailable; calling it again does no harm."""
        listed: dict[str, Any] = {"images": [image_item(image) for image in result.images]}
        if result.images_key:
            listed = {"output_key": result.images_key}
        attributes: dict[str, Any] = listed | {
            "queued_ms": result.timings.queued_ms,
            "prepare_ms": result.timings.prepare_ms,
            "generate_ms": result.timings.generate_ms,
            "store_ms": result.timings.store_ms,
        }
        optional = {"checkpoint": result.checkpoint, "sampler": result.sampler, "warnings": list(result.warnings)}
        optional |= {"result_s3_uri": result.result_s3_uri}
        attributes |= {name: value for name, value in optional.items() if value}
        if result.gpu_cost_usd is not None:
            attributes["gpu_cost_usd"] = result.gpu_cost_usd
        update = Update().set(**attributes)
        addresses = [self._address(image.key) for image in result.images]
        self._end(claim, task, update, "completed", addresses=addresses, error="")

    def fail(self, claim: Claim, task: Task, failure: Failure) -> None:
        """Write the bad end with its reason. Raises LeaseLost, Unavailable."""
        update = Update().set(**_failure_item(failure))
        self._end(claim, task, update, "failed", error=failure.message)

    def cancelled(self, claim: Claim, task: Task) -> None:
        """Write the end of a task whose cancellation was asked for. Raises LeaseLost, Unavailable."""
        self._end(claim, task, Update(), "cancelled", error="cancelled")

    def _end(
        self, claim: Claim, task: Task, update: Update, status: str, *, error: str, addresses: Sequence[str] = ()
    ) -> None:
        self._final(update, status, task.format, error=error, addresses=addresses)
        if claim.attempt > 1 or claim.owner in self._renewed or status == "cancelled":
            update.remove(*RUN_STATE)
        update.when(HELD, **_holder(claim))
        self._write(claim.task_id, update, doing="finishing")
        self._renewed.discard(claim.owner)

    def close_unclaimed(self, task_id: str, record: Mapping[str, Any], status: str, failure: Failure | None) -> bool:
        """Write an end on a record that nobody holds, as `record` showed it; return False if it has changed since.

        For a task whose runs are spent, whose holder died after cancellation was asked for, or whose request, in
        the record, makes no sense. Raises Unavailable.
        """
        update = Update().set(owner="closed")  # so that a holder who comes back late is fenced off
        update.remove(*RUN_STATE)
        if failure is not None:
            update.set(**_failure_item(failure))
        self._final(update, status, _format_of(record), error=failure.message if failure else status)
        attempt = record.get("attempt")
        if is_number(attempt):
            update.when("{attempt} = {:attempt}", attempt=attempt)
        else:  # what is no number is no attempt of ours, and such a record stays as it is
            update.when("attribute_not_exists({attempt})")
        update.when(FREE, waiting="waiting", pending="pending", processing="processing", now=self._clock.now())
        update.when("attribute_exists({" + self._key_name + "})")
        try:
            self._write(task_id, update, doing="closing")
        except LeaseLost:
            return False
        return True

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
        with suppress(LeaseLost):
            self._write(task_id, update, doing="noting the announcement of")

    def _final(self, update: Update, status: str, form: Format, *, error: str, addresses: Sequence[str] = ()) -> None:
        now = self._clock.now()
        update.set(
            status=status,
            updated_at=int(now),
            finished_at=now,
            expires_at=math.ceil(now) + self._ttl_s,
        )
        update.remove("lease_until")
        if form is Format.JOB_API:
            update.set(**job_api.ended(status))
        if form is Format.PREDECESSOR:
            update.set(**predecessor.finished(addresses, error[:MAX_MESSAGE_CHARS], now=now))

    def create(self, task: Task, *, job_type: str) -> bool:
        """Write the `pending` record of a task about to be sent; False when the id is already taken.

        Raises Unavailable. A record that is there with the same fingerprint is no harm: the claim decides.
        """
        now = int(self._clock.now())
        update = Update().set(
            status="pending", fingerprint=task.fingerprint, job_type=job_type, created_at=now, updated_at=now
        )
        update.set(**format_of(task))
        update.when("attribute_not_exists({" + self._key_name + "})")
        try:
            self._write(task.task_id, update, doing="creating")
        except LeaseLost:
            return False
        return True

    def request_cancel(self, task_id: str) -> str:
        """Cancel a task: at once when it waits, through its holder when it runs. Return its status afterwards.

        ``processing`` means that the holder will write the end within one renewal; ``missing`` that there is no
        such record. Raises Unavailable.
        """
        for _ in range(3):
            record = self.read([task_id]).get(task_id)
            if record is None:
                return "missing"
            status = record.get("status")
            if status is None:  # a record of the predecessor's own
                status = "pending" if record.get("taskStatus", "waiting") == "waiting" else "completed"
            if status == "processing":
                update = Update().set(cancel_requested=True).when("{status} = {:status}", status=status)
                try:
                    self._write(task_id, update, doing="cancelling")
                except LeaseLost:
                    continue
                return status
            if status != "pending" or self.close_unclaimed(task_id, record, "cancelled", None):
                return "cancelled" if status == "pending" else str(status)
        raise Unavailable(f"the record of task {task_id} keeps changing under the cancellation")

    def _write(
        self,
        task_id: str,
        update: Update,
        *,
        doing: str,
        client: DynamoDBClient | None = None,
        returns: Literal["ALL_NEW", "NONE"] = "NONE",
    ) -> Mapping[str, Any]:
        """Send `update` and return what it asks to be returned. Raises LeaseLost with the record that forbids it."""
        call = (client or self._client).update_item
        arguments = update.arguments() | {"TableName": self._table, "Key": self._key(task_id), "ReturnValues": returns}
        with understood(f"{doing} task {task_id}"):
            try:
                answer = call(**arguments)
            except ClientError as error:
                record = _failed_condition(error)
                raise LeaseLost(f"{doing} task {task_id}: the record does not allow it", record) from error
            require_aws(answer)
            return decode(answer["Attributes"] if returns == "ALL_NEW" else {})

    def _key(self, task_id: str) -> dict[str, Any]:
        return {self._key_name: encode(task_id)}


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """The record that did not allow a claim, None when there is none."""

    record: Mapping[str, Any] | None


def _holder(claim: Claim) -> dict[str, Any]:
    return {"owner": claim.owner, "attempt": claim.attempt}


def _record_of(lost: LeaseLost) -> Mapping[str, Any] | None:
    """Return the record that did not allow a write, when there was one."""
    return lost.args[1] if len(lost.args) > 1 else None


def _is_held(record: Mapping[str, Any], claim: Claim) -> bool:
    return record.get("owner") == claim.owner and record.get("attempt") == claim.attempt


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


def _failed_condition(error: ClientError) -> dict[str, Any] | None:
    """Return the record that failed a condition, None when there is none; raise any other error again."""
    if code_of(error) != "ConditionalCheckFailedException":
        raise error
    response: Mapping[str, Any] = error.response
    item = response.get("Item")
    return decode(item) if item else None


def _format_of(record: Mapping[str, Any]) -> Format:
    """Return the format whose words the clients of a record expect in it."""
    if "requestData" in record or "taskStatus" in record:
        return Format.PREDECESSOR
    return Format.JOB_API if record.get("format") == Format.JOB_API else Format.OWN


def _failure_item(failure: Failure) -> dict[str, Any]:
    # Clients and engines put anything into these; a record that is too large could not be written at all.
    message, field, engine = (
        failure.message[:MAX_MESSAGE_CHARS],
        (failure.field or "")[:200],
        (failure.engine or "")[:500],
    )
    error = {"class": failure.kind, "message": message, "field": field, "engine": engine}
    return {
        "error": {name: value for name, value in error.items() if value},
        "error_message": message,
    }


def discover_key_name(client: DynamoDBClient, table: str) -> str:
    """Return what `table` calls a task's id. Raises Unavailable when it cannot be asked, or has another key."""
    with understood(f"describing table {table}"):
        schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
        names = [key["AttributeName"] for key in schema]
    if len(names) != 1 or names[0] not in KEY_NAMES:
        raise Unavailable(f"table {table} has the key {names}; it must be task_id or taskId: is it the right table?")
    return names[0]
