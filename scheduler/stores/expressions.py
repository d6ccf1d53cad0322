"""DynamoDB update expressions, built from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


def encode(value: object) -> dict[str, Any]:
    """Return one value in DynamoDB's typed form; floats are kept to the millisecond."""
    return dict(_serialize(_plain(value)))


def decode(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's attributes as Python values; numbers are Decimal."""
    return {name: _deserialize(value) for name, value in item.items()}


def _plain(value: object) -> object:
    if isinstance(value, float):
        return Decimal(f"{value:.3f}")
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


class Update:
    """One update in the making; every attribute goes by a placeholder, so that reserved words do no harm."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._sets: list[str] = []
        self._adds: list[str] = []
        self._removes: list[str] = []
        self._conditions: list[str] = []

    def name(self, attribute: str) -> str:
        """Return the placeholder of an attribute's name."""
        placeholder = "#" + attribute
        self._names[placeholder] = attribute
        return placeholder

    def value(self, value: object) -> str:
        """Return a placeholder for a value."""
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = encode(value)
        return placeholder

    def set(self, **attributes: object) -> Update:
        """Set attributes."""
        self._sets += [f"{self.name(name)} = {self.value(value)}" for name, value in attributes.items()]
        return self

    def set_once(self, **attributes: object) -> Update:
        """Set attributes that are not there yet."""
        for name, value in attributes.items():
            placeholder = self.name(name)
            self._sets.append(f"{placeholder} = if_not_exists({placeholder}, {self.value(value)})")
        return self

    def add(self, **attributes: int) -> Update:
        """Add to numbers; an absent one counts as 0."""
        self._adds += [f"{self.name(name)} {self.value(value)}" for name, value in attributes.items()]
        return self

    def remove(self, *attributes: str) -> Update:
        """Remove attributes."""
        self._removes += [self.name(name) for name in attributes]
        return self

    def when(self, condition: str, **values: object) -> Update:
        """Require `condition`, in which ``{name}`` stands for an attribute and ``{:name}`` for a keyword's value."""
        for name, value in values.items():
            condition = condition.replace("{:" + name + "}", self.value(value))
        while "{" in condition:
            name = condition[condition.index("{") + 1 : condition.index("}")]
            condition = condition.replace("{" + name + "}", self.name(name))
        self._conditions.append(f"({condition})")
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for UpdateItem, but for table and key."""
        parts = [("SET", self._sets), ("ADD", self._adds), ("REMOVE", self._removes)]
        arguments: dict[str, Any] = {
            "UpdateExpression": " ".join(f"{verb} {', '.join(items)}" for verb, items in parts if items),
            "ExpressionAttributeNames": self._names,
            "ConditionExpression": " AND ".join(self._conditions),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if self._values:
            arguments["ExpressionAttributeValues"] = self._values
        return arguments
