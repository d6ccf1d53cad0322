"""Makes the table of the fleet's state: workers' records and the leader's decisions."""

from __future__ import annotations

from collections.abc import Iterator

from scheduler.aws import shape
from scheduler.aws.make_table import create, describe, expiry, wait_until_active
from scheduler.aws.making import Making, Outcome, State


def make_state_table(making: Making, name: str) -> Iterator[Outcome]:
    """Make the table; one that is there gets what it lacks."""
    table = describe(making, name)
    told = ", ".join(attribute for attribute, _ in shape.STATE_KEY)
    if table is None:
        still = create(
            making,
            name,
            {
                "KeySchema": [{"AttributeName": attribute, "KeyType": role} for attribute, role in shape.STATE_KEY],
                "AttributeDefinitions": [
                    {"AttributeName": attribute, "AttributeType": "S"} for attribute, _ in shape.STATE_KEY
                ],
                "BillingMode": "PAY_PER_REQUEST",
            },
        )
        yield making.outcome(f"table {name}", State.CREATED, f"key {told}{still}")
        yield expiry(making, name, is_new=True)
        return
    if fault := shape.state_key_fault(table):
        detail = f"{fault}, which cannot be changed: name another as [autoscaling] state_table"
        yield making.outcome(f"table {name}", State.DIFFERS, detail)
        return
    yield making.outcome(f"table {name}", State.EXISTS, f"key {told}")
    wait_until_active(making, name)
    yield expiry(making, name, is_new=False)
