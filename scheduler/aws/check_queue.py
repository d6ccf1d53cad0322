"""Checks one queue and its dead-letter queue without hiding, changing or sending a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scheduler.aws import shape
from scheduler.aws.addresses import Account, region_fault
from scheduler.aws.addresses import read_queue as read_address
from scheduler.aws.checking import Asking, Finding, NotAnswered, fail, ok, skipped, warn
from scheduler.aws.described import Queue, Redrive, read_queue
from scheduler.aws.operator_clients import OperatorClients

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import GetQueueUrlResultTypeDef

NO_RECEIPT = "doctor"
"""A receipt that SQS refuses, but only after it has looked whether the call is allowed."""
BAD_RECEIPT = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue"})
MAKE_IT = "run: sd-scheduler setup"

Simulate = Callable[[str, str, str], Finding]
"""Checks by IAM's simulator: name of the check, action, ARN."""


@dataclass(slots=True)
class QueueChecks:
    """The checks of one queue. Afterwards `lease_s` and `retention_s` (queue and dead-letter queue together) tell
    what they found, None when they could not.
    """

    clients: OperatorClients
    asking: Asking
    account: Account
    name_or_url: str
    lease_s: int | None = None
    retention_s: int | None = None

    def run(self, simulate: Simulate, *, rejected_arn: str) -> Iterator[Finding]:
        """Yield every finding. `rejected_arn` is where refused messages go when there is no dead-letter queue."""
        address = read_address(self.name_or_url)
        check, arn = f"queue {address.name}", self.account.queue_arn(address)
        if fault := region_fault(self.name_or_url, self.clients.region):
            yield fail(check, fault, "correct one of the two: calls go to aws_region, whatever the URL says")
            return
        try:
            queue = self._look_at(self.name_or_url)
        except NotAnswered as error:
            if error.code in shape.NO_QUEUE:
                yield fail(check, f"there is no queue {arn}", f"correct sqs_queue_url, or {MAKE_IT}")
            else:
                yield error.finding(check, action="sqs:GetQueueUrl and sqs:GetQueueAttributes", arn=arn)
            yield skipped(f"{check} permissions", "the queue could not be asked")
            return
        yield ok(check, queue.url)
        yield self._visibility(f"{check} visibility", queue.visibility_s)
        yield from self._redrive(check, queue)
        yield self._receive(f"{check} receive", queue, arn)
        yield from self._permissions(check, queue.url, arn)
        if queue.redrive is None:
            yield simulate(f"{check} refusals", "s3:PutObject", rejected_arn)
        else:
            yield simulate(f"{check} refusals", "sqs:SendMessage", queue.redrive.dlq_arn)

    def _look_at(self, name_or_url: str) -> Queue:
        sqs, url = self.clients.sqs, name_or_url
        if "/" not in name_or_url:
            url = self._url(lambda: sqs.get_queue_url(QueueName=name_or_url))
        return self.asking.read(
            lambda: sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
            lambda answer: read_queue(url, answer["Attributes"]),
        )

    def _url(self, call: Callable[[], GetQueueUrlResultTypeDef]) -> str:
        return self.asking.read(call, lambda answer: str(answer["QueueUrl"]))

    def _visibility(self, check: str, visibility_s: int) -> Finding:
        low, high = shape.LEASE_RANGE_S
        self.lease_s = min(high, max(low, visibility_s))
        if self.lease_s == visibility_s:
            return ok(check, f"{visibility_s} s")
        advice = f"set the queue's visibility timeout to {shape.VISIBILITY_S} s, so that other readers use the same"
        return warn(check, f"{visibility_s} s; workers take {self.lease_s} s", advice)

    def _redrive(self, check: str, queue: Queue) -> Iterator[Finding]:
        redrive = queue.redrive
        if redrive is None:
            found = "none: what cannot become a task is kept under rejected/ in the bucket"
            yield warn(f"{check} dead letters", found, MAKE_IT)
            return
        receives = redrive.max_receive_count
        if receives < shape.MIN_RECEIVE_COUNT:
            found = f"maxReceiveCount is {receives}: tasks that are put back a few times would be dead-lettered"
            yield fail(f"{check} redrive", found, f"set it to {shape.MAX_RECEIVE_COUNT}: sd-scheduler setup --fix")
        else:
            yield ok(f"{check} redrive", f"after {receives} receives to {redrive.dlq.name}")
        yield from self._dlq(f"{check} dead letters", redrive, queue.retention_s)

    def _dlq(self, check: str, redrive: Redrive, retention_s: int) -> Iterator[Finding]:
        sqs, dlq = self.clients.sqs, redrive.dlq
        try:
            url = self._url(lambda: sqs.get_queue_url(QueueName=dlq.name, QueueOwnerAWSAccountId=dlq.account or ""))
        except NotAnswered as error:
            if error.code in shape.NO_QUEUE:
                yield fail(check, f"the redrive policy names {redrive.dlq_arn}, which is not there", MAKE_IT)
            else:
                yield error.finding(check, action="sqs:GetQueueUrl", arn=redrive.dlq_arn)
            return
        try:
            kept_s = self._look_at(url).retention_s
        except NotAnswered as error:
            if error.code in shape.NO_QUEUE:  # some emulators give an address for anything
                yield fail(check, f"the redrive policy names {redrive.dlq_arn}, which is not there", MAKE_IT)
            else:
                yield skipped(check, f"{dlq.name} is there, but may not be looked at (a worker need not): {error}")
            return
        self.retention_s = retention_s + kept_s
        found = f"{dlq.name} keeps messages {kept_s / shape.DAY_S:g} days, the queue {retention_s / shape.DAY_S:g}"
        if kept_s < retention_s:
            advice = "a dead letter keeps its age: give the dead-letter queue 14 days (sd-scheduler setup --fix)"
            yield fail(check, found, advice)
        else:
            yield ok(check, found)

    def _receive(self, check: str, queue: Queue, arn: str) -> Finding:
        """Look at one message without hiding it; it counts as one receive, for which there must be room."""
        if queue.redrive is not None and queue.redrive.max_receive_count < shape.MIN_RECEIVE_COUNT:
            return skipped(check, "each look brings a message nearer to the dead-letter queue; mend the redrive first")
        sqs, url = self.clients.sqs, queue.url
        return self.asking.permission(
            check,
            lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, VisibilityTimeout=0, WaitTimeSeconds=0),
            action="sqs:ReceiveMessage",
            arn=arn,
        )

    def _permissions(self, check: str, url: str, arn: str) -> Iterator[Finding]:
        sqs = self.clients.sqs
        yield self.asking.permission(
            f"{check} extend",
            lambda: sqs.change_message_visibility_batch(
                QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": NO_RECEIPT, "VisibilityTimeout": 0}]
            ),
            action="sqs:ChangeMessageVisibility",
            arn=arn,
            proved_by=BAD_RECEIPT,
        )
        yield self.asking.permission(
            f"{check} delete",
            lambda: sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": NO_RECEIPT}]),
            action="sqs:DeleteMessage",
            arn=arn,
            proved_by=BAD_RECEIPT,
        )
