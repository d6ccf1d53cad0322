"""A table for a fleet's state in an emulator."""

from __future__ import annotations

from aws_servers import Cloud, unique


def fleet_table(cloud: Cloud) -> str:
    """Make one, and return its name."""
    name = unique("fleet")
    cloud.clients.dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "fleet", "KeyType": "HASH"}, {"AttributeName": "item", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "fleet", "AttributeType": "S"},
            {"AttributeName": "item", "AttributeType": "S"},
        ],
    )
    return name
