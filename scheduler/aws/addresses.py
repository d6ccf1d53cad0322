"""What the configured names stand for at AWS: queue URLs taken apart, ARNs put together; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_QUEUE_NAME_CHARS = 80
_DLQ_SUFFIX = "-dlq"
_REGION_IN_HOST = re.compile(r"(?:^|\.)sqs\.([a-z0-9-]+)\.|^([a-z0-9-]+)\.queue\.")
_ACCOUNT = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAddress:
    """A queue as it is configured; account and region only where its URL names them."""

    name: str
    account: str | None = None
    region: str | None = None


def read_queue(name_or_url: str) -> QueueAddress:
    """Take a queue's URL apart; a bare name stands for a queue of one's own account."""
    if "/" not in name_or_url:
        return QueueAddress(name=name_or_url)
    url = urlsplit(name_or_url)
    account, name = url.path.strip("/").split("/")[-2:]
    host = _REGION_IN_HOST.search(url.hostname or "")
    return QueueAddress(
        name=name,
        account=account if _ACCOUNT.fullmatch(account) else None,
        region=host and (host[1] or host[2]),
    )


def dlq_name(queue: str) -> str:
    """Return the name that `setup` gives the dead-letter queue of `queue`."""
    return queue + _DLQ_SUFFIX


def topic_region(arn: str) -> str | None:
    """Return the region of a topic, None for no topic."""
    return arn.split(":")[3] if arn else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where resources lie: enough to put their ARNs together."""

    number: str
    region: str
    partition: str = "aws"

    def queue_arn(self, address: QueueAddress) -> str:
        """Return the ARN of a queue; the account that its URL names goes before this one."""
        return f"arn:{self.partition}:sqs:{self.region}:{address.account or self.number}:{address.name}"

    def table_arn(self, table: str) -> str:
        """Return the ARN of a table."""
        return f"arn:{self.partition}:dynamodb:{self.region}:{self.number}:table/{table}"

    def objects_arn(self, bucket: str, key: str = "*") -> str:
        """Return the ARN of an object, or of all objects, of a bucket."""
        return f"arn:{self.partition}:s3:::{bucket}/{key}"


def region_fault(name_or_url: str, region: str) -> str | None:
    """Say what is wrong when a queue's URL names another region than the configured one.

    Calls go to the configured region whatever the URL says, so that the queue would not be found there.
    """
    named = read_queue(name_or_url).region
    if named is None or named == region:
        return None
    return f"sqs_queue_url {name_or_url} lies in {named}, but aws_region is {region}"
