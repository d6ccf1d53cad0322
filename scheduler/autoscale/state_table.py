"""The fleet's table in DynamoDB: workers' records, the decision item, what was decided before, and pauses.

One partition a fleet (`fleet`); `item` is ``worker#<instance id>``, ``decision``, ``history#<version>``,
``settings`` or ``pause``.
What only our own code reads inside an item is kept as JSON text in one attribute. An item that makes no sense is told
of once (`fleet_record_odd`), and stops nobody: see `scheduler.autoscale.state_records` for what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import ClientError

from scheduler.autoscale.book import Book, Pause, Published
from scheduler.autoscale.ports import Registry, Written
from scheduler.autoscale.protocol import Change, Report, State, Worker
from scheduler.autoscale.state_records import (
    WORKER,
    OddRecord,
    book_of,
    pause_of,
    published_of,
    version_of,
    worker_of,
)
from scheduler.aws.errors import code_of, translated
from scheduler.domain.errors import Unavailable, Unstorable
from scheduler.domain.ports import Clock
from scheduler.stores.expressions import Update, decode, encode

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

log = structlog.get_logger()
KEEP_HISTORY_S = 14 * 86400
HISTORY = "history#"


class DynamoFleetState:
    """The state of one fleet in one table."""

    def __init__(self, client: DynamoDBClient, table: str, fleet: str, *, clock: Clock) -> None:
        self._client = client
        self._table = table
        self._fleet = fleet
        self._clock = clock
        self._odd: set[str] = set()
        """Items that were told of."""

    def change(self, change: Change) -> Written:
        """Make one conditional write to a worker's record. Raises Unavailable,
        also when it makes no sense as it stands.
        """
        update = Update().set(**{name: _stored(value) for name, value in change.sets.items()}).add(**change.adds)
        update.remove(*sorted(change.drops))
        if change.expects_none:
            update.when("attribute_not_exists({item})")
        for name, value in change.requires.items():
            update.when("{" + name + "} = {:" + name + "}", **{name: _stored(value)})
        for name, values in change.forbids.items():
            for value in sorted(values):
                update.when("{" + name + "} <> {:" + name + "}", **{name: _stored(value)})
        doing = f"writing the record of {change.instance_id}"
        try:
            with translated(doing):
                try:
                    answer = self._client.update_item(
                        TableName=self._table,
                        Key=self._key(WORKER + change.instance_id),
                        ReturnValues="ALL_NEW",
                        **update.arguments(),
                    )
                except ClientError as error:
                    return self._refused(change, error)
        except Unstorable as error:  # an attribute is of another type than what is added to it
            raise Unavailable(error.message) from error
        return Written(is_applied=True, worker=self._worker(decode(answer["Attributes"])))

    def _refused(self, change: Change, error: ClientError) -> Written:
        """Return a refusal; raise again what is none.

        The client library may have sent the write twice: if the record is as the write makes it, the first one did it.
        """
        if code_of(error) != "ConditionalCheckFailedException":
            raise error
        response: Mapping[str, Any] = error.response
        item = decode(response["Item"]) if response.get("Item") else None
        made = {name: _stored(value) for name, value in change.sets.items() if name != "report"}
        is_ours = item is not None and not change.adds and all(item.get(name) == value for name, value in made.items())
        return Written(is_applied=is_ours, worker=self._worker(item) if item else None)

    def worker(self, instance_id: str) -> Worker | None:
        """Return one worker's record. Raises Unavailable, also when it makes no sense."""
        item = self._get(WORKER + instance_id)
        return None if item is None else self._worker(item)

    def registry(self) -> Registry:
        """Return all records. Raises Unavailable."""
        workers: list[Worker] = []
        unreadable: dict[str, str] = {}
        for item in self._query(WORKER):
            try:
                workers.append(worker_of(item))
                self._odd.discard(item["item"])
            except OddRecord as odd:
                unreadable[item["item"].removeprefix(WORKER)] = str(odd)
                self._tell(item, odd)
        return Registry(workers=tuple(workers), unreadable=unreadable)

    def book(self) -> Book | None:
        """Return the decision item; a new one, of its version, where it makes no sense. Raises Unavailable."""
        item = self._get("decision")
        if item is None:
            return None
        try:
            return book_of(item)
        except OddRecord as odd:
            version = self._version(item, odd)
            leader = item.get("leader")
            return Book(version=version, leader=leader if isinstance(leader, str) else "", began_s=self._clock.now())

    def write_book(self, book: Book, *, seen: int | None) -> bool:
        """Write the decision item if nobody else did since version `seen`. Raises Unavailable."""
        attributes = _book_attributes(book)
        return self._put_if("decision", attributes, seen=seen, doing="writing the fleet's decision")

    def keep(self, book: Book) -> None:
        """Keep a decision with its inputs. Raises Unavailable."""
        expires_at = int(self._clock.now()) + KEEP_HISTORY_S
        attributes = _book_attributes(replace(book, policy_state={})) | {"expires_at": expires_at}
        item = self._key(f"{HISTORY}{book.version:012d}") | {name: encode(value) for name, value in attributes.items()}
        with translated("keeping the fleet's decision"):
            self._client.put_item(TableName=self._table, Item=item)

    def history(self, most: int) -> list[Book]:
        """Return the last decisions, newest first, but for what makes no sense. Raises Unavailable."""
        books: list[Book] = []
        for item in self._query(HISTORY, most=most, newest_first=True):
            try:
                books.append(book_of(item))
            except OddRecord as odd:
                self._tell(item, odd)
        return books

    def published(self) -> Published | None:
        """Return the settings that all follow; where they make no sense,
        empty and older than any. Raises Unavailable.
        """
        item = self._get("settings")
        if item is None:
            return None
        try:
            return published_of(item)
        except OddRecord as odd:
            return Published(version=self._version(item, odd), modified_s=0.0, by="", values={})

    def publish(self, settings: Published, *, seen: int | None) -> bool:
        """Publish settings if nobody else did since version `seen`. Raises Unavailable."""
        attributes = {
            "version": settings.version,
            "modified_s": _stored(settings.modified_s),
            "by": settings.by,
            "body": json.dumps(dict(settings.values)),
        }
        return self._put_if("settings", attributes, seen=seen, doing="publishing [autoscaling]")

    def pause(self) -> Pause | None:
        """Return the pause that was asked for last; one that makes no sense is none. Raises Unavailable."""
        item = self._get("pause")
        if item is None:
            return None
        try:
            return pause_of(item)
        except OddRecord as odd:
            self._tell(item, odd)
            return None

    def set_pause(self, pause: Pause) -> None:
        """Ask for a pause, or end one. Raises Unavailable."""
        item = self._key("pause") | {name: encode(value) for name, value in asdict(pause).items()}
        with translated("pausing the fleet"):
            self._client.put_item(TableName=self._table, Item=item)

    def _worker(self, item: Mapping[str, Any]) -> Worker:
        """Return a worker's record. Raises Unavailable when it makes no sense: what it asks for must not be guessed."""
        try:
            return worker_of(item)
        except OddRecord as odd:
            self._tell(item, odd)
            raise Unavailable(self._said(item, odd)) from odd

    def _version(self, item: Mapping[str, Any], odd: OddRecord) -> int:
        """Tell of an odd item, and return its version. Raises Unavailable where it has none,
        for nobody can write it.
        """
        self._tell(item, odd)
        try:
            return version_of(item)
        except OddRecord:
            raise Unavailable(self._said(item, odd)) from odd

    def _said(self, item: Mapping[str, Any], odd: OddRecord) -> str:
        return f"the item {item['item']} of table {self._table} makes no sense ({odd}): delete it"

    def _tell(self, item: Mapping[str, Any], odd: OddRecord) -> None:
        name = item["item"]
        if name not in self._odd:
            self._odd.add(name)
            log.error("fleet_record_odd", table=self._table, item=name, why=str(odd))

    def _put_if(self, item: str, attributes: Mapping[str, Any], *, seen: int | None, doing: str) -> bool:
        """Write an item that has versions; True also when an earlier send of this very write had been applied."""
        update = Update().set(**attributes)
        if seen is None:
            update.when("attribute_not_exists({item})")
        else:
            update.when("{version} = {:seen}", seen=seen)
        with translated(doing):
            try:
                self._client.update_item(TableName=self._table, Key=self._key(item), **update.arguments())
            except ClientError as error:
                if code_of(error) != "ConditionalCheckFailedException":
                    raise
                response: Mapping[str, Any] = error.response
                found = decode(response.get("Item") or {})
                return all(found.get(name) == value for name, value in attributes.items())
        return True

    def _key(self, item: str) -> dict[str, Any]:
        return {"fleet": encode(self._fleet), "item": encode(item)}

    def _get(self, item: str) -> dict[str, Any] | None:
        with translated(f"reading {item} of table {self._table}"):
            answer = self._client.get_item(TableName=self._table, Key=self._key(item), ConsistentRead=True)
        return decode(answer["Item"]) if answer.get("Item") else None

    def _query(self, prefix: str, *, most: int | None = None, newest_first: bool = False) -> list[dict[str, Any]]:
        """Return the items whose name begins with `prefix`, all pages, or `most` of them."""
        found: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "#0 = :0 AND begins_with(#1, :1)",
            "ExpressionAttributeNames": {"#0": "fleet", "#1": "item"},
            "ExpressionAttributeValues": {":0": encode(self._fleet), ":1": encode(prefix)},
            "ScanIndexForward": not newest_first,
        }
        if most is not None:
            arguments["Limit"] = most
        while True:
            with translated(f"reading the fleet from table {self._table}"):
                answer = self._client.query(**arguments)
            found += [decode(item) for item in answer["Items"]]
            last = answer.get("LastEvaluatedKey")
            if not last or (most is not None and len(found) >= most):
                return found[:most]
            arguments["ExclusiveStartKey"] = last


def _stored(value: object) -> Any:
    """Return a value as the table keeps it."""
    if isinstance(value, Report):
        return json.dumps(asdict(value), separators=(",", ":"))
    if isinstance(value, State):
        return value.value
    return Decimal(f"{value:.3f}") if isinstance(value, float) else value


def _book_attributes(book: Book) -> dict[str, Any]:
    body = json.dumps(book.to_json(), separators=(",", ":"))
    return {"version": book.version, "leader": book.leader, "written_at": int(book.written_s), "body": body}
