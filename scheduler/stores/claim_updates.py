"""The updates that may claim a task: for the first time, again, after a failure, and for another message with its id.

The first is the common one and says less, because a record that was never claimed has nothing to count on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.domain.claiming import REUSABLE, Refusal, messages_of
from scheduler.domain.task import Format, Message, Task
from scheduler.stores.expressions import Update

UNMARKED = "attribute_not_exists({cancel_requested}) OR {cancel_requested} = {:no}"
FREE = (
    "(attribute_not_exists({status}) AND (attribute_not_exists({taskStatus}) OR {taskStatus} = {:waiting}))"
    " OR {status} = {:pending} OR ({status} = {:processing} AND {lease_until} <= {:now})"
)
LAST_TRY = (
    *("error", "error_message", "finished_at", "tries", "first_try_at", "cancel_requested", "expires_at"),
    *("comfy_job_id", "comfy_job_at", "announced_at"),
)
"""What a failure leaves in the record."""
LAST_RUN = (
    *("images", "output_key", "checkpoint", "sampler", "warnings", "gpu_cost_usd", "context_key"),
    *("queued_ms", "prepare_ms", "generate_ms", "store_ms", "result_s3_uri"),
)
"""What a good end leaves there."""
MOST_EARLIER = 5
"""Runs before the last whose messages a record names."""
ENDED = "{status} IN ({:completed}, {:failed}, {:cancelled})"
SAME_REQUEST = (
    "attribute_not_exists({requestData}) AND (attribute_not_exists({fingerprint}) OR {fingerprint} = {:print})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claiming:
    """Who claims what: `now` is epoch seconds, `key_name` what the table calls a task's id."""

    task: Task
    message: Message
    owner: str
    worker: str
    instance_id: str = ""
    now: float
    lease_s: float
    max_runs: int
    key_name: str

    def after(self, reason: Refusal, record: Mapping[str, Any]) -> Update:
        """Return the claim that `record` allows, which refused another as `reason` says."""
        match reason:
            case Refusal.RESENT:
                return self.resent()
            case Refusal.REUSED:
                return self.reused(record)
            case _:
                return self.again()

    def first(self) -> Update:
        """Claim a record that is absent, or was written by whoever submitted the task and never claimed."""
        update = self._held().set(run_no=1, attempt=1, runs=1).when("attribute_not_exists({attempt})")
        if self.task.by_reference:
            return update.set(created_at=int(self.message.sent_at_s)).when(
                "{taskStatus} = {:waiting}", waiting="waiting"
            )
        update.set(fingerprint=self.task.fingerprint, job_type=self.task.job_type)
        update.set_once(created_at=int(self.message.sent_at_s))
        update.when(SAME_REQUEST, print=self.task.fingerprint)
        return update.when("attribute_not_exists({status}) OR {status} = {:pending}", pending="pending")

    def again(self) -> Update:
        """Claim a record that is free: never claimed, given back, or its lease has run out; count one run more."""
        update = self._known().add(attempt=1, runs=1)
        update.when(UNMARKED, no=False)
        update.when("attribute_not_exists({runs}) OR {runs} < {:max}", max=self.max_runs)
        return update.when(FREE, waiting="waiting", pending="pending", processing="processing", now=self.now)

    def resent(self) -> Update:
        """Claim a task that failed and was sent anew: runs begin again, the fence goes on."""
        update = self._known().add(attempt=1).set(runs=1)
        update.remove(*LAST_TRY)
        if self.task.format is Format.PREDECESSOR:
            update.set(taskStatus="waiting").remove("processRes", "processTime")
        update.when("attribute_not_exists({finished_at}) OR {finished_at} < {:sent}", sent=self.message.sent_at_s)
        return update.when("{status} = {:failed}", failed="failed")

    def reused(self, record: Mapping[str, Any]) -> Update:
        """Claim an id that its client chose once more, maybe for another request: a new run, and the fence goes on.

        The record keeps the messages of the runs before, for copies of them may still come.
        """
        update = self._held().add(attempt=1).set(runs=1, created_at=int(self.message.sent_at_s))
        if "run_no" in record:
            update.add(run_no=1)
        else:  # cancelled before anybody claimed it, its end was told as that of run 1
            update.set(run_no=2).when("attribute_not_exists({run_no})")
        update.set(fingerprint=self.task.fingerprint, job_type=self.task.job_type).remove(*LAST_TRY, *LAST_RUN)
        if not self.task.runtime:
            update.remove("runtime")
        update.when(ENDED, completed="completed", failed="failed", cancelled="cancelled")
        first, second = REUSABLE
        update.when("{format} IN ({:first}, {:second})", first=first, second=second)
        if "message_id" not in record:
            return update.when("attribute_not_exists({message_id})")
        update.set(earlier_messages=messages_of(record)[:MOST_EARLIER])
        return update.when("{message_id} = {:seen}", seen=record["message_id"])

    def _held(self) -> Update:
        update = Update().set(
            status="processing",
            owner=self.owner,
            lease_until=self.now + self.lease_s,
            updated_at=int(self.now),
            worker=self.worker,
        )
        if self.instance_id:
            update.set(instance_id=self.instance_id)
        if self.task.runtime:
            update.set(runtime=self.task.runtime)
        if self.task.format.is_eks:
            update.set(message_id=self.message.identity)
        return update.set(**format_of(self.task))

    def _known(self) -> Update:
        """Begin the claim of a record that may hold anything."""
        update = self._held().set_once(created_at=int(self.message.sent_at_s), run_no=1)
        if self.task.by_reference:
            return update.when("attribute_exists({" + self.key_name + "})")
        update.set_once(fingerprint=self.task.fingerprint, job_type=self.task.job_type)
        return update.when(SAME_REQUEST, print=self.task.fingerprint)


def format_of(task: Task) -> dict[str, str]:
    """Return the attribute that names a task's format: only of those that are not told by anything else."""
    told = task.format not in {Format.OWN, Format.PREDECESSOR}
    return {"format": task.format.value} if told else {}
