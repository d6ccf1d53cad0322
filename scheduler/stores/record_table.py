"""The table of the task records: read consistently, and written only where a record is as the write requires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import ClientError

from scheduler.aws.answers import require_aws, understood
from scheduler.aws.errors import code_of
from scheduler.aws.shape import KEY_NAMES
from scheduler.domain.errors import Unavailable
from scheduler.stores.expressions import Update, decode, encode

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


class ConditionFailed(Exception):
    """A write was refused by the record as it is, which is `record`; None when there is none. It stays in `stores`."""

    def __init__(self, message: str, record: Mapping[str, Any] | None) -> None:
        super().__init__(message)
        self.record = record


class RecordTable:
    """One table by its name; `key_name` is what it calls a task's id."""

    def __init__(self, client: DynamoDBClient, name: str, *, key_name: str) -> None:
        self._client = client
        self._name = name
        self.key_name = key_name

    def read(self, task_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the records that exist among at most 100 ids, read consistently. Raises Unavailable."""
        keys = [self._key(task_id) for task_id in dict.fromkeys(task_ids)]
        found: dict[str, dict[str, Any]] = {}
        while keys:
            with understood(f"reading {len(keys)} records of table {self._name}"):
                answer = self._client.batch_get_item(RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}})
                items: list[dict[str, Any]] = answer["Responses"].get(self._name) or []
                found |= {record[self.key_name]: record for record in map(decode, items)}
                unprocessed: Mapping[str, Any] = answer["UnprocessedKeys"]
                keys = [dict(key) for key in unprocessed.get(self._name, {}).get("Keys", [])]
            if keys and not items:
                raise Unavailable(f"table {self._name} is throttled: {len(keys)} records unread")
        return found

    def write(
        self, task_id: str, update: Update, *, doing: str, returns: Literal["ALL_NEW", "NONE"] = "NONE"
    ) -> Mapping[str, Any]:
        """Send `update` and return what it asks to be returned.

        Raises ConditionFailed, Unavailable, and Unstorable for what DynamoDB never takes.
        """
        arguments = update.arguments() | {"TableName": self._name, "Key": self._key(task_id), "ReturnValues": returns}
        with understood(f"{doing} task {task_id}"):
            try:
                answer = self._client.update_item(**arguments)
            except ClientError as error:
                record = _refusing(error)
                raise ConditionFailed(f"{doing} task {task_id}: the record does not allow it", record) from error
            require_aws(answer)
            return decode(answer["Attributes"] if returns == "ALL_NEW" else {})

    def write_if_allowed(self, task_id: str, update: Update, *, doing: str) -> bool:
        """Send `update`; False when the record refuses it. Raises Unavailable, Unstorable."""
        try:
            self.write(task_id, update, doing=doing)
        except ConditionFailed:
            return False
        return True

    def _key(self, task_id: str) -> dict[str, Any]:
        return {self.key_name: encode(task_id)}


def _refusing(error: ClientError) -> dict[str, Any] | None:
    """Return the record that failed a condition, None when there is none; raise any other error again."""
    if code_of(error) != "ConditionalCheckFailedException":
        raise error
    response: Mapping[str, Any] = error.response
    item = response.get("Item")
    return decode(item) if item else None


def discover_key_name(client: DynamoDBClient, table: str) -> str:
    """Return what `table` calls a task's id. Raises Unavailable when it cannot be asked, or has another key."""
    with understood(f"describing table {table}"):
        schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
        names = [key["AttributeName"] for key in schema]
    if len(names) != 1 or names[0] not in KEY_NAMES:
        raise Unavailable(f"table {table} has the key {names}; it must be task_id or taskId: is it the right table?")
    return names[0]
