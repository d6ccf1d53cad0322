"""Doctor's checks of AWS: credentials, clock, queues, table, bucket; it reads Settings and changes nothing of value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.aws import shape
from scheduler.aws.addresses import Account
from scheduler.aws.check_others import OtherChecks
from scheduler.aws.check_queue import QueueChecks
from scheduler.aws.check_stores import StoreChecks
from scheduler.aws.checking import Asking, Finding, NotAnswered, fail, ok, skipped, warn
from scheduler.aws.operator_clients import OperatorClients
from scheduler.config import Settings
from scheduler.domain.ports import Clock

UNKNOWN_ACCOUNT = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whose credentials these are. `principal` is the ARN that IAM's simulator knows them by, if it does."""

    account: str
    arn: str

    @property
    def principal(self) -> str | None:
        """Return the role or user behind the credentials; None for root and federated users."""
        _, partition, *_, resource = self.arn.split(":", 5)
        kind, _, rest = resource.partition("/")
        if kind == "assumed-role":
            return f"arn:{partition}:iam::{self.account}:role/{rest.partition('/')[0]}"
        return self.arn if kind in {"user", "role"} else None


def run(clients: OperatorClients, settings: Settings, *, clock: Clock) -> Iterator[Finding]:
    """Check everything at AWS; yield findings as they are known. Raises nothing of AWS's."""
    aws, asking = settings.aws, Asking(clock=clock)
    caller: Caller | None = None
    try:
        caller = asking.read(clients.sts.get_caller_identity, _read_caller)
    except NotAnswered as error:
        if error.has_bad_credentials:
            yield fail("credentials", str(error), "renew the credentials, or give the instance its role")
            yield skipped("queues, table, bucket, clock", "not checked: AWS does not take the credentials")
            return
        yield warn("credentials", f"STS did not tell whose they are: {error}", "see whether STS can be reached")
    else:
        yield ok("credentials", caller.arn)
    number = caller.account if caller else UNKNOWN_ACCOUNT
    account = Account(number=number, region=clients.region, partition=clients.partition)

    def simulate(check: str, action: str, arn: str) -> Finding:
        return _simulated(clients, asking, caller, check=check, action=action, arn=arn)

    queues = [
        QueueChecks(clients=clients, asking=asking, account=account, name_or_url=name) for name in aws.sqs_queue_url
    ]
    rejected_arn = account.objects_arn(aws.s3_bucket, "rejected/*")
    for queue in queues:
        yield from queue.run(simulate, rejected_arn=rejected_arn)
    stores = StoreChecks(clients=clients, asking=asking, account=account)
    yield from stores.table(aws.dynamodb_table)
    yield lifetime("records", settings.scheduler.record_ttl_days, [queue.retention_s for queue in queues])
    yield from stores.bucket(aws.s3_bucket, prefix=settings.scheduler.default_prefix)
    yield _addresses(aws.cloudfront_domain)
    others = OtherChecks(clients=clients, asking=asking, account=account, simulate=simulate)
    for bucket in settings.input_buckets:
        if bucket != aws.s3_bucket:
            yield from others.input_bucket(bucket)
    if topic := settings.notify.sns_topic_arn:
        yield from others.topic(topic)
    leases = [queue.lease_s for queue in queues if queue.lease_s]
    yield clock_finding(asking, lease_s=min(leases, default=shape.VISIBILITY_S))


def _read_caller(answer: Mapping[str, Any]) -> Caller:
    if answer["Arn"].count(":") < 5:
        raise ValueError(f"{answer['Arn']} is no ARN")
    return Caller(account=answer["Account"], arn=answer["Arn"])


def lifetime(check: str, record_ttl_days: int, retentions_s: list[int | None]) -> Finding:
    """Compare how long records are kept with how long copies of their messages may live (None: unknown)."""
    longest_s = max(shape.LONGEST_RETENTION_S if each is None else each for each in retentions_s)
    if fault := shape.record_lifetime_fault(record_ttl_days, longest_s):
        return fail(check, f"{fault}: a copy that outlives the record is rendered again", "raise record_ttl_days")
    found = f"kept {record_ttl_days} days, copies of a message at most {longest_s / shape.DAY_S:g}"
    return ok(check, found)


def clock_finding(asking: Asking, *, lease_s: int) -> Finding:
    """Judge this host's clock as the daemon does: off by more than a twelfth of the lease, it takes no work."""
    least_s, most_s = asking.skew.least_s(), lease_s / 12
    if least_s > most_s:
        found = f"at least {least_s:.1f} s off AWS's; leases bear {most_s:.1f} s"
        return fail("clock", found, "synchronise it: chrony or systemd-timesyncd")
    return ok("clock", f"agrees with AWS's within what leases bear ({most_s:.1f} s)")


def _addresses(domain: str) -> Finding:
    if domain:
        return ok("cloudfront", f"addresses of pictures are https://{domain}/KEY, on SNS S3 URIs (not tried from here)")
    return ok("cloudfront", "no cloudfront_domain: addresses of pictures are S3 URIs")


def _simulated(
    clients: OperatorClients, asking: Asking, caller: Caller | None, *, check: str, action: str, arn: str
) -> Finding:
    """Ask IAM's simulator about a call that cannot be tried without consequence."""
    unproved = f"{action} on {arn} is not checked: it cannot be tried without doing it"
    if caller is None or caller.principal is None:
        who = "nobody knows whose credentials these are" if caller is None else f"IAM does not simulate {caller.arn}"
        return skipped(check, f"{unproved}, and {who}")

    def call() -> dict[str, Any]:
        answer: dict[str, Any] = clients.iam.simulate_principal_policy(
            PolicySourceArn=caller.principal, ActionNames=[action], ResourceArns=[arn]
        )
        return answer

    try:
        decisions = asking.read(call, lambda answer: {result["EvalDecision"] for result in answer["EvaluationResults"]})
    except NotAnswered as error:
        why = "may not ask IAM's simulator" if error.is_denied else f"got no answer from IAM's simulator ({error})"
        return skipped(check, f"{unproved}, and these credentials {why}", "allow iam:SimulatePrincipalPolicy to check")
    if decisions == {"allowed"}:
        return ok(check, f"{action} is allowed (by IAM's simulator)")
    found = f"{action} is refused by IAM's simulator: {', '.join(sorted(decisions))}"
    return fail(check, found, f"allow {action} on {arn}")
