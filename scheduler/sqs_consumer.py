"""One SQS queue: receive, extend, give back, delete, refuse. It knows messages, not what tasks mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scheduler.aws.answers import require_aws, understood
from scheduler.aws.clients import Clients
from scheduler.aws.errors import DENIED, code_of
from scheduler.aws.shape import LEASE_RANGE_S, NO_QUEUE
from scheduler.domain.errors import Rejected, Unavailable
from scheduler.domain.ports import Clock
from scheduler.domain.skew import SkewBounds
from scheduler.domain.task import Message

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import MessageTypeDef

BATCH = 10
NO_DLQ = DENIED | NO_QUEUE | {"InvalidParameterValue"}
"""What SQS says when a dead-letter queue takes a message never: refused, gone, or made for smaller ones."""
MAX_ATTRIBUTE_CHARS = 500
MAX_DLQ_BODY_BYTES = 1024 * 1024 - 8192
"""SQS counts attributes into the 1 MiB of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """What AWS says of a queue: its URL, its visibility timeout, and the URL of its dead-letter queue if it has one."""

    url: str
    visibility_s: int
    dlq_url: str | None


def discover(client: SQSClient, name_or_url: str, *, clock: Clock, skew: SkewBounds) -> QueueFacts:
    """Ask for a queue's facts. Raises Unavailable; the answer's date feeds `skew`."""
    with understood(f"asking about queue {name_or_url}"):
        url = name_or_url
        if "/" not in url:
            url = client.get_queue_url(QueueName=name_or_url)["QueueUrl"]
        sent_at_s = clock.now()
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout", "RedrivePolicy"])
        _learn_skew(answer, skew, sent_at_s=sent_at_s, received_at_s=clock.now())
        attributes = answer["Attributes"]
        redrive = json.loads(attributes.get("RedrivePolicy", "{}"))
        dlq_url = None
        if arn := redrive.get("deadLetterTargetArn"):
            account, name = str(arn).split(":")[4:6]
            dlq_url = _url_if_there(client, name, account)
        return QueueFacts(url=url, visibility_s=int(attributes["VisibilityTimeout"]), dlq_url=dlq_url)


def _url_if_there(client: SQSClient, name: str, account: str) -> str | None:
    """Return a queue's URL, None when it is gone or we may not ask: refused messages then go to the bucket."""
    try:
        return client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
    except ClientError as error:
        if code_of(error) not in DENIED | NO_QUEUE:
            raise
        return None


class SqsQueue:
    """A queue as its consumers use it; safe for threads.

    `index` is its place in the order of priority. The lease, in whole seconds, is the visibility timeout that every
    receive and every extension ask for: the queue's own, within 5 to 60 s.
    """

    def __init__(
        self, clients: Clients, facts: QueueFacts, *, index: int, bucket: str, clock: Clock, skew: SkewBounds
    ) -> None:
        self.facts = facts
        self.index = index
        low, high = LEASE_RANGE_S
        self.lease_s = min(high, max(low, facts.visibility_s))
        self._clients = clients
        self._bucket = bucket
        self._clock = clock
        self._skew = skew

    def receive(self, most: int, *, wait_s: int) -> list[Message]:
        """Return up to `most` messages, waiting up to `wait_s` for the first. Raises Unavailable."""
        with understood(f"receiving from {self.facts.url}"):
            sent_at_s = self._clock.now()
            answer = self._clients.receive.receive_message(
                QueueUrl=self.facts.url,
                MaxNumberOfMessages=min(most, BATCH),
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self.lease_s,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            )
            _learn_skew(answer, self._skew, sent_at_s=sent_at_s, received_at_s=self._clock.now())
            return [self._message(entry) for entry in answer.get("Messages", [])]

    def _message(self, entry: MessageTypeDef) -> Message:
        attributes = entry.get("Attributes", {})
        return Message(
            queue=self.index,
            message_id=entry["MessageId"],
            receipt=entry["ReceiptHandle"],
            body=entry["Body"],
            sent_at_s=int(attributes["SentTimestamp"]) / 1000,
            receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
            received_s=self._clock.monotonic(),
        )

    def extend(self, receipts: Sequence[str]) -> list[str]:
        """Keep messages hidden for one more lease; return the receipts that SQS no longer knows. Raises Unavailable."""
        return self._change(self._clients.keeper_sqs, receipts, self.lease_s, doing="extending")

    def give_back(self, receipts: Sequence[str], *, delay_s: float) -> list[str]:
        """Show messages again after `delay_s` (0 for now); return the receipts that SQS no longer knows."""
        return self._change(self._clients.sqs, receipts, round(delay_s), doing="giving back")

    def _change(self, client: SQSClient, receipts: Sequence[str], timeout_s: int, *, doing: str) -> list[str]:
        def change(entries: list[Any]) -> Any:
            return client.change_message_visibility_batch(QueueUrl=self.facts.url, Entries=entries)

        return self._in_batches(receipts, change, {"VisibilityTimeout": timeout_s}, doing=doing)

    def delete(self, receipts: Sequence[str]) -> list[str]:
        """Delete messages; return the receipts whose deletion SQS did not acknowledge. Raises Unavailable."""

        def delete(entries: list[Any]) -> Any:
            return self._clients.sqs.delete_message_batch(QueueUrl=self.facts.url, Entries=entries)

        return self._in_batches(receipts, delete, {}, doing="deleting")

    def _in_batches(
        self, receipts: Sequence[str], call: Callable[[list[Any]], Any], extra: dict[str, Any], *, doing: str
    ) -> list[str]:
        """Return the receipts that SQS did not acknowledge by name."""
        failed: list[str] = []
        for start in range(0, len(receipts), BATCH):
            part = receipts[start : start + BATCH]
            entries = [{"Id": str(n), "ReceiptHandle": receipt, **extra} for n, receipt in enumerate(part)]
            with understood(f"{doing} {len(part)} messages of {self.facts.url}"):
                done = {entry["Id"] for entry in call(entries).get("Successful", [])}
            failed += [receipt for n, receipt in enumerate(part) if str(n) not in done]
        return failed

    def refuse(self, message: Message, why: Rejected) -> None:
        """Keep what cannot become a task, with the reason, where a person finds it; then delete it.

        That is the dead-letter queue, or `rejected/<message-id>.json` in the bucket where there is none, where it
        does not take the message, or where the body leaves no room for the reason. Raises Unavailable, and then the
        message is as it was.
        """
        reason, field = _attribute(why.message), _attribute(why.field or "body")
        if not self._send_to_dlq(message, reason=reason, field=field):
            _keep_in_bucket(self._clients.s3, self._bucket, message, reason=reason, field=field)
        if self.delete([message.receipt]):
            raise Unavailable(f"deleting the refused message {message.message_id} was not acknowledged")

    def _send_to_dlq(self, message: Message, *, reason: str, field: str) -> bool:
        """Send to the dead-letter queue; False when there is none for this message."""
        if not self.facts.dlq_url or len(message.body.encode()) > MAX_DLQ_BODY_BYTES:
            return False
        attributes: Any = {
            "reject_reason": {"DataType": "String", "StringValue": reason},
            "reject_field": {"DataType": "String", "StringValue": field},
        }
        with understood(f"refusing message {message.message_id}"):
            try:
                answer = self._clients.sqs.send_message(
                    QueueUrl=self.facts.dlq_url, MessageBody=message.body, MessageAttributes=attributes
                )
            except ClientError as error:
                if code_of(error) in NO_DLQ:
                    return False
                raise
            return bool(answer["MessageId"])


def _keep_in_bucket(client: S3Client, bucket: str, message: Message, *, reason: str, field: str) -> None:
    kept = {"reject_reason": reason, "reject_field": field, "sent_at": message.sent_at_s, "body": message.body}
    body = json.dumps(kept, indent=1).encode()
    with understood(f"refusing message {message.message_id}"):
        answer = client.put_object(
            Bucket=bucket, Key=f"rejected/{message.message_id}.json", Body=body, ContentType="application/json"
        )
        require_aws(answer)


def _attribute(text: str) -> str:
    """Return `text` as a message attribute may hold it: not empty, printable, bounded."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_ATTRIBUTE_CHARS] or "-"


def _learn_skew(answer: Any, skew: SkewBounds, *, sent_at_s: float, received_at_s: float) -> None:
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date:
        skew.add(date, sent_at_s=sent_at_s, received_at_s=received_at_s)
