"""DynamoDB update expressions, built from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def encode(value: object) -> dict[str, Any]:
    """Return one value in DynamoDB's typed form; floats are kept to the millisecond.

    boto3's own serializer refuses floats and takes several times as long, twenty values to a task.
    """
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int() | Decimal():
            return {"N": str(value)}
        case float():
            return {"N": f"{value:.3f}"}
        case Mapping():
            return {"M": {name: encode(inner) for name, inner in value.items()}}
        case list() | tuple():
            return {"L": [encode(inner) for inner in value]}
        case _:
            raise TypeError(f"{type(value).__name__} has no place in a record")


def decode(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item's attributes as Python values; numbers are Decimal, sets of numbers stay words.

    boto3's own deserializer fails on numbers that DynamoDB itself returns, such as 9e120.
    """
    return {name: _value(typed) for name, typed in item.items()}


def _value(typed: Mapping[str, Any]) -> Any:
    [(kind, value)] = typed.items()
    match kind:
        case "N":
            return Decimal(value)
        case "NULL":
            return None
        case "M":
            return decode(value)
        case "L":
            return [_value(inner) for inner in value]
        case "SS" | "NS" | "BS":
            return set(value)
        case _:
            return value


class Update:
    """One update in the making; every attribute goes by a placeholder, so that reserved words do no harm."""

    def __init__(self) -> None:
        self._placeholders: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._sets: list[str] = []
        self._adds: list[str] = []
        self._removes: list[str] = []
        self._conditions: list[str] = []

    def name(self, attribute: str) -> str:
        """Return the placeholder of an attribute's name."""
        placeholder = self._placeholders.get(attribute)
        if placeholder is None:
            placeholder = self._placeholders[attribute] = f"#{len(self._placeholders)}"
        return placeholder

    def value(self, value: object) -> str:
        """Return a placeholder for a value."""
        placeholder = f":{len(self._values)}"
        self._values[placeholder] = encode(value)
        return placeholder

    def set(self, **attributes: object) -> Update:
        """Set attributes."""
        self._sets += [f"{self.name(name)}={self.value(value)}" for name, value in attributes.items()]
        return self

    def set_once(self, **attributes: object) -> Update:
        """Set attributes that are not there yet."""
        for name, value in attributes.items():
            placeholder = self.name(name)
            self._sets.append(f"{placeholder}=if_not_exists({placeholder},{self.value(value)})")
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
            "UpdateExpression": " ".join(f"{verb} {','.join(items)}" for verb, items in parts if items),
            "ExpressionAttributeNames": {short: name for name, short in self._placeholders.items()},
            "ConditionExpression": " AND ".join(self._conditions),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if self._values:
            arguments["ExpressionAttributeValues"] = self._values
        return arguments
