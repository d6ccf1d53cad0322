"""The three updates that may claim a task: for the first time, again, and after a failure that was sent anew.

The first is the common one and says less, because a record that was never claimed has nothing to count on.
"""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.domain.task import Format, Message, Task
from scheduler.stores.expressions import Update

UNMARKED = "attribute_not_exists({cancel_requested}) OR {cancel_requested} = {:no}"
FREE = (
    "(attribute_not_exists({status}) AND (attribute_not_exists({taskStatus}) OR {taskStatus} = {:waiting}))"
    " OR {status} = {:pending} OR ({status} = {:processing} AND {lease_until} <= {:now})"
)
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

    def first(self) -> Update:
        """Claim a record that is absent, or was written by whoever submitted the task and never claimed."""
        update = self._held().set(run_no=1, attempt=1, runs=1).when("attribute_not_exists({attempt})")
        if self.task.by_reference:
            return update.set(created_at=int(self.message.sent_at_s)).when(
                "{taskStatus} = {:waiting}", waiting="waiting"
            )
        update.set(fingerprint=self.task.fingerprint, job_type=self.task.task_type.value)
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
        update.remove(
            "error", "error_message", "finished_at", "tries", "first_try_at", "cancel_requested", "expires_at"
        )
        if self.task.format is Format.PREDECESSOR:
            update.set(taskStatus="waiting").remove("processRes", "processTime")
        update.when("attribute_not_exists({finished_at}) OR {finished_at} < {:sent}", sent=self.message.sent_at_s)
        return update.when("{status} = {:failed}", failed="failed")

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
        return update.set(runtime=self.task.runtime) if self.task.runtime else update

    def _known(self) -> Update:
        """Begin the claim of a record that may hold anything."""
        update = self._held().set_once(created_at=int(self.message.sent_at_s), run_no=1)
        if self.task.by_reference:
            return update.when("attribute_exists({" + self.key_name + "})")
        update.set_once(fingerprint=self.task.fingerprint, job_type=self.task.task_type.value)
        return update.when(SAME_REQUEST, print=self.task.fingerprint)
