"""Makes the table of task records with its index and its expiry, or says how the one that is there differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from scheduler.aws import shape
from scheduler.aws.answers import understood
from scheduler.aws.described import Table, read_expiry, read_table
from scheduler.aws.errors import code_of
from scheduler.aws.making import POLL_S, Making, Outcome, State

BY_HAND = "setup does not change that: mend it by hand"


def make_table(making: Making, name: str) -> Iterator[Outcome]:
    """Make the table; one that is there gets what it lacks."""
    table = describe(making, name)
    if table is None:
        still = _create(making, name)
        yield making.outcome(f"table {name}", State.CREATED, f"key task_id, index {shape.INDEX}{still}")
        yield expiry(making, name, is_new=True)
        return
    if fault := shape.key_fault(table):
        detail = f"{fault}, which cannot be changed: name another table in conf.ini"
        yield making.outcome(f"table {name}", State.DIFFERS, detail)
        return
    yield making.outcome(f"table {name}", State.EXISTS, f"key {table.key['HASH']}")
    wait_until_active(making, name)  # a table that is being changed takes no other change
    yield _index(making, name, table)
    yield expiry(making, name, is_new=False)


def describe(making: Making, name: str) -> Table | None:
    """Return what a table is like, None when there is none. Raises Unavailable."""
    with understood(f"describing table {name}"):
        try:
            return read_table(making.clients.dynamodb.describe_table(TableName=name)["Table"])
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise


def _create(making: Making, name: str) -> str:
    return create(
        making,
        name,
        {
            "KeySchema": [{"AttributeName": "task_id", "KeyType": "HASH"}],
            "AttributeDefinitions": _definitions({"task_id": "S"}),
            "BillingMode": "PAY_PER_REQUEST",
            "GlobalSecondaryIndexes": [_index_definition()],
        },
    )


def create(making: Making, name: str, definition: Mapping[str, Any]) -> str:
    """Create a table and wait for it; return what the outcome must add when that takes longer."""
    if making.is_rehearsed:
        return ""
    with understood(f"creating table {name}"):
        try:
            making.clients.dynamodb.create_table(TableName=name, **definition)
        except ClientError as error:
            if code_of(error) != "ResourceInUseException":  # another setup was faster
                raise
    return wait_until_active(making, name)


def _definitions(types: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the attribute definitions of a table that has `types` and the index."""
    all_types = {**types, **dict(shape.INDEX_KEYS.values())}
    return [{"AttributeName": name, "AttributeType": kind} for name, kind in all_types.items()]


def _index_definition() -> dict[str, Any]:
    return {
        "IndexName": shape.INDEX,
        "KeySchema": [{"AttributeName": name, "KeyType": role} for role, (name, _) in shape.INDEX_KEYS.items()],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }


def wait_until_active(making: Making, name: str) -> str:
    """Wait for the table and its indexes; return what the outcome must add when they take longer."""
    if making.is_rehearsed:
        return ""
    for _ in range(max(1, int(making.wait_s / POLL_S))):
        table = describe(making, name)
        if table is not None and table.is_settled:
            return ""
        making.say(f"waiting for table {name} to become active")
        making.pause(POLL_S)
    return "; AWS is still building it"


def _index(making: Making, name: str, table: Table) -> Outcome:
    resource = f"table {name} index"
    if fault := shape.index_fault(table):
        return making.outcome(resource, State.DIFFERS, f"{shape.INDEX}: {fault}; {BY_HAND}")
    if index := shape.find_index(table):
        return making.outcome(resource, State.EXISTS, f"{shape.INDEX}, projection {index.projection}")
    still = ""
    if not making.is_rehearsed:
        create = _index_definition()
        if table.provisioned is not None:
            create["ProvisionedThroughput"] = dict(table.provisioned)
        change: dict[str, Any] = {
            "AttributeDefinitions": _definitions(table.types),
            "GlobalSecondaryIndexUpdates": [{"Create": create}],
        }
        with understood(f"adding an index to table {name}"):
            making.clients.dynamodb.update_table(TableName=name, **change)
        still = wait_until_active(making, name)
    return making.outcome(resource, State.ADDED, f"{shape.INDEX}{still}")


def expiry(making: Making, name: str, *, is_new: bool) -> Outcome:
    """Have the table's items expire by our attribute."""
    resource, dynamodb = f"table {name} expiry", making.clients.dynamodb
    if not is_new:
        with understood(f"asking whether the items of table {name} expire"):
            attribute = read_expiry(dynamodb.describe_time_to_live(TableName=name))
        if attribute == shape.TTL_ATTRIBUTE:
            return making.outcome(resource, State.EXISTS, f"by {attribute}")
        if attribute is not None:
            detail = f"records expire by {attribute}, not by {shape.TTL_ATTRIBUTE}; {BY_HAND}"
            return making.outcome(resource, State.DIFFERS, detail)
    if not making.is_rehearsed:
        with understood(f"having the items of table {name} expire"):
            dynamodb.update_time_to_live(
                TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": shape.TTL_ATTRIBUTE}
            )
    return making.outcome(resource, State.ADDED, f"by {shape.TTL_ATTRIBUTE}")
