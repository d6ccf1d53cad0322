"""Checks the table and the bucket; the one thing it leaves behind is a small object, written once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.aws import shape
from scheduler.aws.addresses import Account
from scheduler.aws.checking import NOT_A_WORKERS, Asking, Finding, NotAnswered, fail, ok, skipped, warn
from scheduler.aws.described import Table, bucket_region, read_expiry, read_public_access, read_table
from scheduler.aws.operator_clients import OperatorClients
from scheduler.domain.keys import PREVIEW_NAME

MAKE_IT = "run: sd-scheduler setup"
PROBE = "doctor-probe"
PROBE_TEXT = b"Written by `sd-scheduler doctor` to see whether it may write here. It can be deleted.\n"
IS_THERE = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChecks:
    """The checks of table and bucket."""

    clients: OperatorClients
    asking: Asking
    account: Account

    def table(self, name: str) -> Iterator[Finding]:
        """Yield every finding about the table."""
        check, arn = f"table {name}", self.account.table_arn(name)
        dynamodb = self.clients.dynamodb
        try:
            table = self.asking.read(
                lambda: dynamodb.describe_table(TableName=name), lambda answer: read_table(answer["Table"])
            )
        except NotAnswered as error:
            if error.code == "ResourceNotFoundException":
                yield fail(check, f"there is no table {arn}", f"correct dynamodb_table or aws_region, or {MAKE_IT}")
            else:
                yield error.finding(check, action="dynamodb:DescribeTable", arn=arn)
            yield skipped(f"{check} permissions", "the table could not be asked")
            return
        if fault := shape.key_fault(table):
            yield fail(check, fault, "name another table in conf.ini, and run: sd-scheduler setup")
            return
        key = table.key["HASH"]
        if table.status in {"ACTIVE", "UPDATING"}:
            yield ok(check, f"key {key}")
        else:
            yield fail(check, f"it is {table.status}", "wait until AWS calls it ACTIVE")
        yield self._index(f"{check} index", table)
        yield self._expiry(f"{check} expiry", name)
        yield from self._table_permissions(check, arn, name, {key: {"S": PROBE}})

    def _index(self, check: str, table: Table) -> Finding:
        if fault := shape.index_fault(table):
            return warn(check, f"{shape.INDEX}: {fault}", "delete that index, then run: sd-scheduler setup")
        index = shape.find_index(table)
        if index is None:
            return warn(check, f"there is no {shape.INDEX}: tasks cannot be listed by status", MAKE_IT)
        if index.status != "ACTIVE":
            return warn(check, f"{shape.INDEX} is {index.status}", "wait until AWS calls it ACTIVE")
        return ok(check, shape.INDEX)

    def _expiry(self, check: str, name: str) -> Finding:
        dynamodb = self.clients.dynamodb
        try:
            attribute = self.asking.read(lambda: dynamodb.describe_time_to_live(TableName=name), read_expiry)
        except NotAnswered as error:
            return skipped(check, f"not checked: {error if not error.is_denied else NOT_A_WORKERS}")
        if attribute is None:
            return warn(check, "off: records are kept, and paid for, for ever", MAKE_IT)
        if attribute != shape.TTL_ATTRIBUTE:
            advice = f"turn expiry off, and an hour later on by {shape.TTL_ATTRIBUTE} (sd-scheduler setup)"
            return fail(check, f"records expire by {attribute}: one may vanish before its message does", advice)
        return ok(check, f"by {attribute}")

    def _table_permissions(self, check: str, arn: str, name: str, key: dict[str, Any]) -> Iterator[Finding]:
        dynamodb = self.clients.dynamodb
        yield self.asking.permission(
            f"{check} update",
            lambda: dynamodb.update_item(
                TableName=name,
                Key=key,
                UpdateExpression="SET #probe = :probe",
                # Never true, so that nothing is ever written; found out only after the call was allowed.
                ConditionExpression="attribute_exists(#key) AND attribute_not_exists(#key)",
                ExpressionAttributeNames={"#key": next(iter(key)), "#probe": "doctor_probe"},
                ExpressionAttributeValues={":probe": {"S": PROBE}},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ),
            action="dynamodb:UpdateItem",
            arn=arn,
            proved_by=frozenset({"ConditionalCheckFailedException"}),
        )
        yield self.asking.permission(
            f"{check} read",
            lambda: dynamodb.batch_get_item(RequestItems={name: {"Keys": [key], "ConsistentRead": True}}),
            action="dynamodb:BatchGetItem",
            arn=arn,
        )

    def bucket(self, name: str, *, prefix: str) -> Iterator[Finding]:
        """Yield every finding about the bucket; pictures go under `prefix`, and so does the probe."""
        check = f"bucket {name}"
        finding = self._bucket_itself(check, name)
        yield finding
        if finding.verdict == "fail":
            yield skipped(f"{check} permissions", "there is no such bucket to write to")
            return
        key = f"{prefix}/{PROBE}.txt".lstrip("/")
        arn, s3 = self.account.objects_arn(name), self.clients.s3
        written = self.asking.permission(
            f"{check} write",
            lambda: s3.put_object(Bucket=name, Key=key, Body=PROBE_TEXT, ContentType="text/plain", IfNoneMatch="*"),
            action="s3:PutObject",
            arn=arn,
            proved_by=IS_THERE,
        )
        yield written
        if written.verdict == "ok":
            yield self.asking.permission(
                f"{check} read", lambda: s3.head_object(Bucket=name, Key=key), action="s3:GetObject", arn=arn
            )
        else:
            yield skipped(f"{check} read", "nothing could be written that might be read")
        preview = f"{prefix}/{PROBE}/{PREVIEW_NAME}".lstrip("/")  # it is not there: taking it away changes nothing
        yield self.asking.permission(
            f"{check} remove previews",
            lambda: s3.delete_object(Bucket=name, Key=preview),
            action="s3:DeleteObject",
            arn=self.account.objects_arn(name, f"*/{PREVIEW_NAME}"),
        )
        yield self._public_access(f"{check} public access", name)

    def _bucket_itself(self, check: str, name: str) -> Finding:
        s3, asked_for = self.clients.s3, self.clients.region
        error: NotAnswered | None = None
        try:
            answer: Mapping[str, Any] = self.asking.ask(lambda: s3.head_bucket(Bucket=name))
        except NotAnswered as caught:
            error, answer = caught, caught.answer
        region = bucket_region(answer)
        if region not in {None, asked_for}:
            advice = "set aws_region to it, or name a bucket that lies there: sd-scheduler setup makes one"
            return fail(check, f"it lies in {region}, but aws_region is {asked_for}", advice)
        if error is None:
            return ok(check, f"in {region or asked_for}")
        if error.code == "404":
            return fail(check, f"there is no bucket {name}", f"correct s3_bucket, or {MAKE_IT}")
        if error.is_denied:
            return skipped(check, f"not looked at: {NOT_A_WORKERS}. Whether it can be written to is seen next")
        return error.finding(check, action="s3:ListBucket", arn=f"arn:{self.account.partition}:s3:::{name}")

    def _public_access(self, check: str, name: str) -> Finding:
        s3 = self.clients.s3
        advice = "if people see pictures through CloudFront only, turn Block Public Access on"
        try:
            is_closed = self.asking.read(lambda: s3.get_public_access_block(Bucket=name), read_public_access)
        except NotAnswered as error:
            if error.code == "NoSuchPublicAccessBlockConfiguration":
                return warn(check, "not blocked", advice)
            return skipped(check, f"not checked: {error if not error.is_denied else NOT_A_WORKERS}")
        return ok(check, "blocked") if is_closed else warn(check, "not wholly blocked", advice)
