"""Bodies read as the real server reads them: lenient types, defaults, and a 422 entry for each misfit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.local.standin.refusals import Invalid, Plain

Loc = tuple[str | int, ...]
Kind = Callable[[Any], Any]

TRUE = {"1", "on", "t", "true", "y", "yes"}
FALSE = {"0", "off", "f", "false", "n", "no"}


class Misfit(ValueError):
    """One value that cannot be read as its kind; carries the words and the type name of the 422 entry."""

    def __init__(self, message: str, kind: str, **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.context = context

    def entry(self, loc: Loc) -> dict[str, Any]:
        """Return the entry of the answer's `detail` list."""
        entry = {"loc": list(loc), "msg": self.message, "type": self.kind}
        return entry | {"ctx": self.context} if self.context else entry


def text(value: Any) -> str:
    """Read a string; numbers are turned into one."""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise Misfit("str type expected", "type_error.str")


def integer(value: Any) -> int:
    """Read an integer; a numeral in a string will do, and fractions are cut off."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise Misfit("value is not a valid integer", "type_error.integer") from None


def number(value: Any) -> float:
    """Read a number; a numeral in a string will do."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise Misfit("value is not a valid float", "type_error.float") from None


def flag(value: Any) -> bool:
    """Read a boolean, also from 0, 1 and the usual words."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if isinstance(value, (str, int, float)) and word in TRUE | FALSE:
        return word in TRUE
    raise Misfit("value could not be parsed to a boolean", "type_error.bool")


def array(value: Any) -> list[Any]:
    """Read a list of anything."""
    if isinstance(value, list):
        return value
    raise Misfit("value is not a valid list", "type_error.list")


def mapping(value: Any) -> dict[str, Any]:
    """Read an object; a list of pairs will do."""
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise Misfit("value is not a valid dict", "type_error.dict") from None


def between(low: float, high: float) -> Kind:
    """Return the kind of a number from `low` to `high`, both included."""

    def kind(value: Any) -> float:
        read = number(value)
        if read < low:
            raise Misfit(
                f"ensure this value is greater than or equal to {low:g}", "value_error.number.not_ge", limit_value=low
            )
        if read > high:
            raise Misfit(
                f"ensure this value is less than or equal to {high:g}", "value_error.number.not_le", limit_value=high
            )
        return read

    return kind


def above_zero(value: Any) -> float:
    """Read a number greater than 0."""
    read = number(value)
    if read <= 0:
        raise Misfit("ensure this value is greater than 0", "value_error.number.not_gt", limit_value=0)
    return read


def zero_or_one(value: Any) -> int:
    """Read one of the two numbers, and nothing like them."""
    if value in (0, 1):
        return int(value)
    raise Misfit("unexpected value; permitted: 0, 1", "value_error.const", given=value, permitted=[0, 1])


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a body: what it is called, how it is read, what stands for it when it is not sent."""

    name: str
    kind: Kind
    default: Any = None
    nullable: bool = True
    required: bool = False


def read(fields: Sequence[Field], body: Mapping[str, Any], loc: Loc = ("body",)) -> dict[str, Any]:
    """Return every field's value; fields that are not in `fields` are ignored. Raises Invalid."""
    values: dict[str, Any] = {}
    problems: list[dict[str, Any]] = []
    for field in fields:
        try:
            values[field.name] = _value(field, body)
        except Misfit as misfit:
            problems.append(misfit.entry((*loc, field.name)))
    if problems:
        raise Invalid(*problems)
    return values


def _value(field: Field, body: Mapping[str, Any]) -> Any:
    if field.name not in body:
        if field.required:
            raise Misfit("field required", "value_error.missing")
        return copy.copy(field.default)
    sent = body[field.name]
    if sent is None and not field.nullable:
        raise Misfit("none is not an allowed value", "type_error.none.not_allowed")
    return None if sent is None else field.kind(sent)


def json_object(body: bytes, content_type: str | None) -> dict[str, Any]:
    """Return the object in `body`. Raises Invalid, or Plain when it is not even text."""
    if not body:
        raise Invalid(Misfit("field required", "value_error.missing").entry(("body",)))
    value: Any = body
    if content_type is None or _is_json(content_type):
        try:
            value = json.loads(body)
        except json.JSONDecodeError as error:
            raise Invalid(_broken_json(error)) from error
        except UnicodeDecodeError as error:
            raise Plain(400, "There was an error parsing the body") from error
    if value is None:
        raise Invalid(Misfit("field required", "value_error.missing").entry(("body",)))
    if not isinstance(value, dict):
        raise Invalid(Misfit("value is not a valid dict", "type_error.dict").entry(("body",)))
    return value


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _broken_json(error: json.JSONDecodeError) -> dict[str, Any]:
    misfit = Misfit(
        str(error),
        "value_error.jsondecode",
        msg=error.msg,
        doc=error.doc,
        pos=error.pos,
        lineno=error.lineno,
        colno=error.colno,
    )
    return misfit.entry(("body", error.pos))
