"""Task records in memory, with the rules of the claim written out once more, plainly."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fakes.faults import Faults
from scheduler.domain.claiming import FINAL, Refusal, Refused, judge
from scheduler.domain.ends import image_item
from scheduler.domain.errors import Counts, LeaseLost
from scheduler.domain.ports import Clock
from scheduler.domain.task import Claim, Failure, Format, Message, Progress, Result, Task
from scheduler.wire import predecessor

Record = dict[str, Any]
RUN_STATE = ("lease_until", "progress", "step", "eta_s", "node", "preview_key")


class FakeTaskStore:
    """The `TaskStore` port over the dict `records`, in the vocabulary of the real table; safe for threads."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_runs: int = 3,
        key_name: str = "task_id",
        address: Callable[[str], str] = "s3://pictures/{}".format,
        worker: str = "worker-1",
        record_ttl_days: int = 90,
    ) -> None:
        self._clock = clock
        self._max_runs = max_runs
        self._key_name = key_name
        self._address = address
        self._worker = worker
        self._ttl_s = record_ttl_days * 86400
        self._lock = threading.RLock()
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.records: dict[str, Record] = {}

    def record(self, task_id: str) -> Record | None:
        """Return a copy of a record, for a test to look at."""
        with self._lock:
            return copy.deepcopy(self.records.get(task_id))

    def put_record(self, record: Record) -> None:
        """Write a record as somebody else would."""
        with self._lock:
            self.records[record[self._key_name]] = copy.deepcopy(record)

    def read(self, task_ids: Sequence[str]) -> dict[str, Record]:
        with self.faults.around("read"), self._lock:
            return {task_id: copy.deepcopy(self.records[task_id]) for task_id in task_ids if task_id in self.records}

    def claim(self, task: Task, message: Message, *, owner: str, lease_s: float) -> Claim | Refused:
        with self.faults.around("claim"), self._lock:
            record = self.records.get(task.task_id)
            if record is None and not task.by_reference:
                record = {self._key_name: task.task_id}
            reason = Refusal.MISSING
            if record is not None:
                reason = judge(
                    record,
                    task=task,
                    message=message,
                    owner=owner,
                    now=self._clock.now(),
                    max_runs=self._max_runs,
                )
            if record is None or reason not in {Refusal.OURS, Refusal.CHANGED, Refusal.RESENT, Refusal.REUSED}:
                return Refused(reason, copy.deepcopy(record))
            # Our own claim whose lease ran out before we heard of it is claimed anew, as by anybody else.
            if reason is not Refusal.OURS or self._is_open(record):
                self._take(record, task, message, owner=owner, lease_s=lease_s, reason=reason)
            elif record["lease_until"] > self._clock.now():
                record["lease_until"] = self._clock.now() + lease_s
            return _claim_of(task.task_id, record, self._worker)

    def _take(
        self, record: Record, task: Task, message: Message, *, owner: str, lease_s: float, reason: Refusal
    ) -> None:
        now = self._clock.now()
        if reason is Refusal.REUSED:
            kept = {name: record[name] for name in (self._key_name, "attempt", "instance_id") if name in record}
            kept["run_no"] = record.get("run_no", 1) + 1
            if "message_id" in record:
                kept["earlier_messages"] = [record["message_id"], *record.get("earlier_messages", [])][:5]
            record.clear()
            record |= kept
        if reason is Refusal.RESENT:
            _drop(record, "runs", "error", "error_message", "finished_at", "tries", "first_try_at", "cancel_requested")
            _drop(record, "announced_at")
            _drop(record, "comfy_job_id", "comfy_job_at")
            if task.format is Format.PREDECESSOR:
                _drop(record, "processRes", "processTime")
                record["taskStatus"] = "waiting"
        record.setdefault("created_at", int(message.sent_at_s))
        record.setdefault("run_no", 1)
        if not task.by_reference:
            record.setdefault("fingerprint", task.fingerprint)
            record.setdefault("job_type", task.job_type)
        if task.runtime:
            record.setdefault("runtime", task.runtime)
        record |= {"status": "processing", "owner": owner, "lease_until": now + lease_s, "updated_at": int(now)}
        record |= _format_of(task)
        if task.format.is_eks:
            record["message_id"] = message.identity
        record["worker"] = self._worker
        record["attempt"] = record.get("attempt", 0) + 1
        record["runs"] = record.get("runs", 0) + 1
        _drop(record, "expires_at")
        self.records[task.task_id] = record

    def _held(self, claim: Claim) -> Record:
        record = self.records.get(claim.task_id)
        if record is None or (record.get("owner"), record.get("attempt")) != (claim.owner, claim.attempt):
            raise LeaseLost(f"task {claim.task_id} is held by another worker")
        return record

    def renew(self, claim: Claim, *, lease_s: float, progress: Progress | None, job_id: str | None = None) -> bool:
        with self.faults.around("renew"), self._lock:
            record = self._held(claim)
            if record["status"] != "processing":
                raise LeaseLost(f"task {claim.task_id} is not held any more")
            record["lease_until"] = self._clock.now() + lease_s
            if progress is not None:
                record |= {"progress": progress.percent, "step": progress.step, "eta_s": progress.eta_s}
                more = {"node": progress.node, "preview_key": progress.preview_key}
                record |= {name: value for name, value in more.items() if value is not None}
            if job_id is not None:
                record |= {"comfy_job_id": job_id, "comfy_job_at": self._worker}
            return bool(record.get("cancel_requested"))

    def release(self, claim: Claim, *, counts: Counts) -> None:
        with self.faults.around("release"), self._lock:
            record = self._held(claim)
            if record["status"] == "pending":
                return  # an earlier send of this release was applied
            if record["status"] != "processing":
                raise LeaseLost(f"task {claim.task_id} has its end")
            now = int(self._clock.now())
            record |= {"status": "pending", "updated_at": now}
            _drop(record, *RUN_STATE)
            if counts is not Counts.RUN:
                record["runs"] -= 1
            if counts is not Counts.NOTHING:
                _drop(record, "comfy_job_id", "comfy_job_at")
            if counts is Counts.TRY:
                record["tries"] = record.get("tries", 0) + 1
                record.setdefault("first_try_at", now)

    def complete(self, claim: Claim, task: Task, result: Result) -> None:
        with self.faults.around("complete"), self._lock:
            record = self._held(claim)
            if result.images_key:
                record["output_key"] = result.images_key
            else:
                record["images"] = [image_item(image) for image in result.images]
            times = result.timings
            record |= {"queued_ms": times.queued_ms, "prepare_ms": times.prepare_ms}
            if result.gpu_cost_usd is not None:
                record["gpu_cost_usd"] = float(result.gpu_cost_usd)
            record |= {"generate_ms": times.generate_ms, "store_ms": times.store_ms}
            named = {"result_s3_uri": result.result_s3_uri, "comfy_job_id": result.job_id}
            record |= {name: value for name, value in named.items() if value}
            told = {"checkpoint": result.checkpoint, "sampler": result.sampler, "warnings": list(result.warnings)}
            record |= {name: value for name, value in told.items() if value}
            addresses = [self._address(image.key) for image in result.images]
            self._finish(record, "completed", task.format, error="", addresses=addresses)

    def fail(self, claim: Claim, task: Task, failure: Failure) -> None:
        with self.faults.around("fail"), self._lock:
            record = self._held(claim)
            _explain(record, failure)
            self._finish(record, "failed", task.format, error=failure.message)

    def cancelled(self, claim: Claim, task: Task) -> None:
        with self.faults.around("cancelled"), self._lock:
            self._finish(self._held(claim), "cancelled", task.format, error="cancelled")

    def close_unclaimed(self, task_id: str, record: Mapping[str, Any], status: str, failure: Failure | None) -> bool:
        with self.faults.around("close_unclaimed"), self._lock:
            mine = self.records.get(task_id)
            if mine is None or mine.get("attempt") != record.get("attempt") or not self._is_free(mine):
                return False
            if failure is not None:
                _explain(mine, failure)
            mine["owner"] = "closed"
            form = Format(mine.get("format", "own"))
            form = Format.PREDECESSOR if "requestData" in mine or "taskStatus" in mine else form
            self._finish(mine, status, form, error=failure.message if failure else status)
            return True

    def announced(self, task_id: str, *, attempt: int | None) -> None:
        with self.faults.around("announced"), self._lock:
            record = self.records.get(task_id, {})
            if record.get("status") in FINAL and record.get("attempt") == attempt:
                record.setdefault("announced_at", int(self._clock.now()))

    def _is_open(self, record: Record) -> bool:
        return (
            self._is_free(record)
            and not record.get("cancel_requested")
            and bool(record.get("runs", 0) < self._max_runs)
        )

    def _is_free(self, record: Record) -> bool:
        match record.get("status"):
            case None:
                return bool(record.get("taskStatus", "waiting") == "waiting")
            case "pending":
                return True
            case "processing":
                return bool(record.get("lease_until", math.inf) <= self._clock.now())
            case _:
                return False

    def _finish(self, record: Record, status: str, form: Format, *, error: str, addresses: Sequence[str] = ()) -> None:
        now = self._clock.now()
        _drop(record, *RUN_STATE, "cancel_requested")
        record |= {"status": status, "updated_at": int(now), "finished_at": now}
        record["expires_at"] = math.ceil(now) + self._ttl_s
        if form is Format.JOB_API and status == "cancelled":
            record["error_message"] = "cancelled"
        if form is Format.PREDECESSOR:
            record |= predecessor.finished(addresses, error, now=now)

    def create(self, task: Task, *, job_type: str) -> bool:
        with self.faults.around("create"), self._lock:
            if task.task_id in self.records:
                return False
            now = int(self._clock.now())
            self.records[task.task_id] = {
                self._key_name: task.task_id,
                "status": "pending",
                "fingerprint": task.fingerprint,
                "job_type": job_type,
                "created_at": now,
                "updated_at": now,
            } | _format_of(task)
            return True

    def request_cancel(self, task_id: str, *, unseen: bool = False) -> str:
        with self.faults.around("request_cancel"), self._lock:
            record = self.records.get(task_id)
            if record is None and not unseen:
                return "missing"
            if record is None:
                now = self._clock.now()
                ended = {"status": "cancelled", "finished_at": now, "updated_at": int(now), "created_at": int(now)}
                expires_at = math.ceil(now) + self._ttl_s
                self.records[task_id] = {
                    "task_id": task_id,
                    "owner": "closed",
                    "expires_at": expires_at,
                    "format": "eks-v1alpha2",
                } | ended
                return "cancelled"
            status = record.get("status") or ("pending" if self._is_free(record) else "completed")
            if status == "processing":
                record["cancel_requested"] = True
            elif status == "pending":
                self.close_unclaimed(task_id, record, "cancelled", None)
                return "cancelled"
            return str(status)


def _format_of(task: Task) -> Record:
    return {} if task.format in {Format.OWN, Format.PREDECESSOR} else {"format": task.format.value}


def _drop(record: Record, *names: str) -> None:
    for name in names:
        record.pop(name, None)


def _explain(record: Record, failure: Failure) -> None:
    error = {"class": failure.kind, "message": failure.message, "field": failure.field, "engine": failure.engine}
    record["error"] = {name: value for name, value in error.items() if value is not None}
    record["error_message"] = failure.message


def _claim_of(task_id: str, record: Record, host: str) -> Claim:
    since = record.get("first_try_at")
    return Claim(
        task_id=task_id,
        owner=record["owner"],
        attempt=int(record["attempt"]),
        run_no=int(record["run_no"]),
        runs=int(record["runs"]),
        tries=int(record.get("tries", 0)),
        first_try_at_s=None if since is None else float(since),
        job_id=record.get("comfy_job_id") if record.get("comfy_job_at") == host else None,
    )
