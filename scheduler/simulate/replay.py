"""What another policy would have wanted of the snapshots that a real fleet's decisions were made from.

The snapshots stay as the real policy made them: what the other's wishes would have led to is not played. So it shows
where two policies part, not what the other would have cost; for that, simulate a trace.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.autoscale.snapshot import Decision, Policy, PolicyState, Snapshot
from scheduler.domain.errors import ConfigError

_FIELDS = {field.name: field for field in dataclasses.fields(Snapshot)}
_EXPECTED = "expected a line that `sd-scheduler fleet why --json` printed"
_EXPECTED_LINES = _EXPECTED.replace("a line", "lines")
_HOW_MANY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One decision as it was kept; without a snapshot when not everything could be read then."""

    at_s: float
    snapshot: Snapshot | None
    policy: str
    capacity: int | None
    reasons: tuple[str, ...]
    hold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A kept decision and what each policy would have decided, in the order of the policies;
    None without a snapshot.
    """

    kept: Kept
    wanted: tuple[Decision | None, ...]


def read_decisions(path: Path) -> list[Kept]:
    """Return the decisions of a file, one JSON object a line, the oldest first. Raises ConfigError, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is no text in UTF-8: {_EXPECTED_LINES}"]) from None
    kept, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                kept.append(_kept(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                problems.append(f"{path}:{number}: {_what(error)}: {_EXPECTED}")
    if not kept and not problems:
        problems.append(f"{path}: holds no decision: {_EXPECTED_LINES}")
    if problems:
        raise ConfigError(problems[:_HOW_MANY])
    return sorted(kept, key=lambda one: one.at_s)


def replay(decisions: Sequence[Kept], policies: Sequence[Policy]) -> list[Replayed]:
    """Ask each policy about each snapshot; each remembers only what it was asked here."""
    states: list[PolicyState] = [{} for _ in policies]
    replayed = []
    for kept in decisions:
        wanted: list[Decision | None] = []
        for number, policy in enumerate(policies):
            decision = policy.decide(kept.snapshot, states[number]) if kept.snapshot else None
            states[number] = decision.state if decision else states[number]
            wanted.append(decision)
        replayed.append(Replayed(kept=kept, wanted=tuple(wanted)))
    return replayed


def _kept(told: Any) -> Kept:
    decision, snapshot = told["decision"], told["snapshot"]
    capacity = decision["capacity"]
    return Kept(
        at_s=float(told["at_s"]),
        snapshot=None if snapshot is None else _snapshot(snapshot),
        policy=str(decision["policy"]),
        capacity=None if capacity is None else int(capacity),
        reasons=tuple(map(str, decision["reasons"])),
        hold=str(decision.get("hold") or ""),
    )


def _snapshot(told: dict[str, Any]) -> Snapshot:
    """Return a snapshot; fields of a later version are passed over, their numbers are taken as they are."""
    missing = [name for name, field in _FIELDS.items() if field.default is dataclasses.MISSING and name not in told]
    if missing:
        raise KeyError(f"snapshot.{missing[0]}")
    known = {name: value for name, value in told.items() if name in _FIELDS}
    for name, value in known.items():
        numbers = value if isinstance(value, list) and name == "booting_s" else [value]
        is_absent = value is None and _FIELDS[name].default is None
        if not is_absent and not all(type(number) in {int, float} for number in numbers):
            raise ValueError(f"snapshot.{name} is {value!r}")
    return Snapshot(**known | {"booting_s": tuple(known.get("booting_s", ()))})


def _what(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"no JSON ({error.msg})"
        case KeyError():
            return f"{error.args[0]} is missing"
        case TypeError():
            return "no decision"
    return str(error)
