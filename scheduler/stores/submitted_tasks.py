"""Task records as those see and write them who submit tasks: created before the message, and cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock
from scheduler.domain.task import Format, Task
from scheduler.stores.claim_updates import format_of
from scheduler.stores.end_updates import Ending
from scheduler.stores.expressions import Update
from scheduler.stores.record_table import RecordTable

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


class SubmittedTasks:
    """The records of one table, for whoever takes no claim; `key_name` is what the table calls a task's id."""

    def __init__(
        self, client: DynamoDBClient, table: str, *, key_name: str, clock: Clock, record_ttl_days: int
    ) -> None:
        self._table = RecordTable(client, table, key_name=key_name)
        self._clock = clock
        self._record_ttl_days = record_ttl_days

    def read(self, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the records that exist among at most 100 ids, read consistently. Raises Unavailable."""
        return self._table.read(task_ids)

    def create(self, task: Task, *, job_type: str) -> bool:
        """Write the `pending` record of a task about to be sent; False when the id is already taken.

        Raises Unavailable. A record that is there with the same fingerprint is no harm: the claim decides.
        """
        now = int(self._clock.now())
        update = Update().set(
            status="pending", fingerprint=task.fingerprint, job_type=job_type, created_at=now, updated_at=now
        )
        update.set(**format_of(task))
        update.when("attribute_not_exists({" + self._table.key_name + "})")
        return self._table.write_if_allowed(task.task_id, update, doing="creating")

    def request_cancel(self, task_id: str, *, unseen: bool = False) -> str:
        """Cancel a task: at once when it waits, through its holder when it runs. Return its status afterwards.

        ``processing`` means that the holder will write the end within one renewal; ``missing`` that there is no
        such record. Who sends straight to the queue has none until a worker claims the task: with `unseen` one is
        written that shows it cancelled, whoever receives the message. Raises Unavailable.
        """
        for _ in range(3):
            record = self.read([task_id]).get(task_id)
            if record is None and not unseen:
                return "missing"
            if record is None:
                update = self._ending().ended("cancelled", Format.OWN, error="cancelled")
                update.set(owner="closed", created_at=int(self._clock.now()))
                # Whose task it is shows when its message comes; by this, ids that are to come again do.
                update.set(format=Format.EKS_V1ALPHA2.value)
                update.when("attribute_not_exists({" + self._table.key_name + "})")
                if self._table.write_if_allowed(task_id, update, doing="cancelling"):
                    return "cancelled"
                continue
            status = record.get("status")
            if status is None:  # a record of the predecessor's own
                status = "pending" if record.get("taskStatus", "waiting") == "waiting" else "completed"
            if status == "processing":
                update = Update().set(cancel_requested=True).when("{status} = {:status}", status=status)
                if self._table.write_if_allowed(task_id, update, doing="cancelling"):
                    return status
            elif status == "pending":
                update = self._ending().closed(record, "cancelled", None, key_name=self._table.key_name)
                if self._table.write_if_allowed(task_id, update, doing="closing"):
                    return "cancelled"
            else:
                return str(status)
        raise Unavailable(f"the record of task {task_id} keeps changing under the cancellation")

    def _ending(self) -> Ending:
        return Ending(now=self._clock.now(), record_ttl_days=self._record_ttl_days)
