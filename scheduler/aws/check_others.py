"""Checks what is named beside a worker's own stores: the topic of ends, and the buckets that inputs come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scheduler.aws.addresses import Account
from scheduler.aws.check_queue import Simulate
from scheduler.aws.checking import NOT_A_WORKERS, Asking, Finding, NotAnswered, fail, ok, skipped
from scheduler.aws.operator_clients import OperatorClients

NOT_THERE = frozenset({"404", "NotFound"})


class Look(NamedTuple):
    """A call that finds out whether something is there, and what IAM calls it."""

    action: str
    arn: str
    call: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherChecks:
    """The checks of what others made: `setup` makes none of it."""

    clients: OperatorClients
    asking: Asking
    account: Account
    simulate: Simulate

    def topic(self, arn: str) -> Iterator[Finding]:
        """Yield every finding about the topic that ends are published to."""
        check = f"topic {arn.rpartition(':')[2]}"
        absent = fail(
            check,
            f"there is no topic {arn}: no task would get its end",
            "make it (aws sns create-topic), or correct [notify] sns_topic_arn; empty, nothing is published",
        )
        look = Look("sns:GetTopicAttributes", arn, lambda: self.clients.sns.get_topic_attributes(TopicArn=arn))
        there = self._is_there(check, look, absent)
        yield there
        if there is not absent:
            yield self.simulate(f"{check} publish", "sns:Publish", arn)

    def input_bucket(self, name: str) -> Iterator[Finding]:
        """Yield every finding about a bucket of [inputs] allow_buckets."""
        check = f"input bucket {name}"
        absent = fail(
            check,
            f"there is no bucket {name}: tasks that name pictures in it fail",
            "correct [inputs] allow_buckets, or make the bucket",
        )
        arn = f"arn:{self.account.partition}:s3:::{name}"
        look = Look("s3:ListBucket", arn, lambda: self.clients.s3.head_bucket(Bucket=name))
        there = self._is_there(check, look, absent)
        yield there
        if there is not absent:
            yield self.simulate(f"{check} read", "s3:GetObject", self.account.objects_arn(name))

    def _is_there(self, check: str, look: Look, absent: Finding) -> Finding:
        try:
            self.asking.ask(look.call)
        except NotAnswered as error:
            if error.code in NOT_THERE:
                return absent
            if error.is_denied:
                return skipped(check, f"not looked at: {NOT_A_WORKERS}")
            return error.finding(check, action=look.action, arn=look.arn)
        return ok(check, "is there")
