"""The IAM policy of a worker: exactly the calls that the daemon makes, on exactly its own resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.aws.addresses import Account, QueueAddress, dlq_name, read_queue
from scheduler.aws.find_queue import find_queue
from scheduler.aws.operator_clients import OperatorClients
from scheduler.config_sections import Aws
from scheduler.domain.errors import Unavailable
from scheduler.domain.keys import PREVIEW_NAME


def worker_policy(
    account: Account,
    *,
    queues: Sequence[QueueAddress],
    dlqs: Sequence[QueueAddress],
    table: str,
    bucket: str,
    input_buckets: Sequence[str] = (),
    topic_arn: str = "",
) -> dict[str, Any]:
    """Return the policy document for a worker's role.

    The batch calls of SQS are covered by the single ones' actions, and reading an object's head by s3:GetObject. Tasks
    may name prefixes of their own, so that objects are not limited to one; `rejected/` is among them. `input_buckets`
    are those that tasks may name pictures from; the worker's own is read anyhow. Without a `topic_arn` nothing is
    published.
    """
    statements = [
        _allow(
            "TakeTasks",
            [
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:ReceiveMessage",
            ],
            [account.queue_arn(queue) for queue in queues],
        ),
        _allow(
            "KeepRefusedMessages", ["sqs:GetQueueUrl", "sqs:SendMessage"], [account.queue_arn(queue) for queue in dlqs]
        ),
        _allow(
            "RecordTasks",
            ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:UpdateItem"],
            [account.table_arn(table)],
        ),
        _allow("StorePictures", ["s3:GetObject", "s3:PutObject"], [account.objects_arn(bucket)]),
        _allow("RemovePreviews", ["s3:DeleteObject"], [account.objects_arn(bucket, f"*/{PREVIEW_NAME}")]),
        _allow(
            "ReadInputs", ["s3:GetObject"], [account.objects_arn(other) for other in input_buckets if other != bucket]
        ),
        _allow("AnnounceEnds", ["sns:Publish"], [topic_arn] if topic_arn else []),
    ]
    return {"Version": "2012-10-17", "Statement": [statement for statement in statements if statement["Resource"]]}


def _allow(sid: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}


def policy_for(
    aws: Aws,
    account: Account,
    *,
    dlqs: Mapping[str, QueueAddress],
    input_buckets: Sequence[str] = (),
    topic_arn: str = "",
) -> dict[str, Any]:
    """Return the policy for a configuration. `dlqs` are the dead-letter queues, by the configured name or URL of their
    queues; one that is not among them is taken to have the dead-letter queue that `setup` makes.
    """
    queues, dead = addresses(aws, dlqs)
    return worker_policy(
        account,
        queues=queues,
        dlqs=dead,
        table=aws.dynamodb_table,
        bucket=aws.s3_bucket,
        input_buckets=input_buckets,
        topic_arn=topic_arn,
    )


def addresses(aws: Aws, dlqs: Mapping[str, QueueAddress]) -> tuple[list[QueueAddress], list[QueueAddress]]:
    """Return the queues of a configuration and their dead-letter queues, by `dlqs` as `policy_for` takes them."""
    queues = {configured: read_queue(configured) for configured in aws.sqs_queue_url}
    usual = {
        configured: QueueAddress(name=dlq_name(queue.name), account=queue.account)
        for configured, queue in queues.items()
    }
    return list(queues.values()), list((usual | dict(dlqs)).values())


def ask_dlqs(clients: OperatorClients, queues: Sequence[str]) -> dict[str, QueueAddress]:
    """Return the dead-letter queues that `queues` have now, by name or URL of each. Raises Unavailable."""
    found: dict[str, QueueAddress] = {}
    for configured in queues:
        queue = find_queue(clients.sqs, configured)
        if queue is None:
            raise Unavailable(f"there is no queue {configured}")
        if queue.redrive is not None:
            found[configured] = queue.redrive.dlq
    return found
