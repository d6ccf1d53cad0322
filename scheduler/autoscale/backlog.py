"""The lengths of the queues that the fleet serves, asked of SQS itself: CloudWatch's are minutes late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scheduler.autoscale.ports import QueueCounts
from scheduler.aws.errors import translated

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient


class SqsBacklog:
    """All queues together, by their URLs."""

    def __init__(self, client: SQSClient, queue_urls: Sequence[str]) -> None:
        self._client = client
        self._queue_urls = tuple(queue_urls)

    def counts(self) -> QueueCounts:
        """Ask SQS now; what it says may be a minute old. Raises Unavailable."""
        visible = delayed = in_flight = 0
        for url in self._queue_urls:
            with translated(f"asking for the length of {url}"):
                attributes = self._client.get_queue_attributes(
                    QueueUrl=url,
                    AttributeNames=[
                        "ApproximateNumberOfMessages",
                        "ApproximateNumberOfMessagesDelayed",
                        "ApproximateNumberOfMessagesNotVisible",
                    ],
                )["Attributes"]
                visible += int(attributes["ApproximateNumberOfMessages"])
                delayed += int(attributes["ApproximateNumberOfMessagesDelayed"])
                in_flight += int(attributes["ApproximateNumberOfMessagesNotVisible"])
        return QueueCounts(visible=visible, delayed=delayed, in_flight=in_flight)
