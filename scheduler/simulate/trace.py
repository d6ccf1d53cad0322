"""Reads what really arrived from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path

from scheduler.domain.errors import ConfigError
from scheduler.simulate.model import Arrival

NEEDED = ("t", "service_s")
OPTIONAL = ("model",)
MILLISECONDS_FROM = 1e11
"""So many seconds are 3,000 years: epoch milliseconds were meant."""
MOST_PROBLEMS = 10
"""So many mistakes are told; a file with one in each row would fill the terminal."""


def read_trace(path: Path) -> list[Arrival]:
    """Return the arrivals of a CSV file by time, the first at 0.

    Columns are ``t`` (seconds from any beginning, under 1e11; rows in any order), ``service_s`` (seconds of GPU work,
    over 0) and optionally ``model``; others are passed over. Raises ConfigError that names line, column, value and what
    would be right.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            arrivals = _Reading(path).read(file)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{path}: is no CSV in UTF-8: {error}"]) from None
    if not arrivals:
        raise ConfigError([f"{path}: has no rows below its head; expected one for each task"])
    arrivals.sort(key=lambda arrival: arrival.at_s)
    first_s = arrivals[0].at_s
    return [arrival._replace(at_s=arrival.at_s - first_s) for arrival in arrivals]


class _Reading:
    """One file's rows, and what was wrong in them so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[str] = []
        self._places: dict[str, int] = {}
        self._line = 0

    def read(self, file: Iterable[str]) -> list[Arrival]:
        rows = csv.reader(file, skipinitialspace=True)
        self._places = self._columns(next(rows, []))
        arrivals = []
        for row in rows:
            if not row:
                continue
            self._line = rows.line_num
            at_s, service_s = self._time_s(row), self._seconds(row, "service_s", above=0.0)
            arrivals.append(Arrival(at_s, service_s, self._text(row, "model")))
            if len(self._problems) >= MOST_PROBLEMS:
                self._problems.append(f"{self._path}: not read further")
                break
        if self._problems:
            raise ConfigError(self._problems)
        return arrivals

    def _columns(self, head: list[str]) -> dict[str, int]:
        columns = [name.strip() for name in head]
        missing = [name for name in NEEDED if name not in columns]
        if missing:
            expected = "expected a head such as t,service_s,model"
            raise ConfigError(
                [
                    f"{self._path}:1: no column {' and no '.join(missing)}: {expected}, found {', '.join(columns) or 'nothing'}"
                ]
            )
        return {name: columns.index(name) for name in (*NEEDED, *OPTIONAL) if name in columns}

    def _text(self, row: list[str], column: str) -> str:
        place = self._places.get(column, -1)
        return row[place].strip() if 0 <= place < len(row) else ""

    def _time_s(self, row: list[str]) -> float:
        """Return ``t``; when it is none, or can only be milliseconds, the problem is kept."""
        at_s = self._seconds(row, "t")
        if abs(at_s) >= MILLISECONDS_FROM:
            self._wrong(
                "t", self._text(row, "t"), "seconds; so large a number can only be milliseconds: divide it by 1000"
            )
        return at_s

    def _seconds(self, row: list[str], column: str, *, above: float = -math.inf) -> float:
        """Return the number of a column; when it is none, 0, and the problem is kept."""
        text = self._text(row, column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value > above:
            return value
        self._wrong(
            column, text, "a number of seconds" if above == -math.inf else f"a number of seconds over {above:g}"
        )
        return 0.0

    def _wrong(self, column: str, text: str, right: str) -> None:
        found = f"{column} is {text!r}" if text else f"{column} is empty"
        self._problems.append(f"{self._path}:{self._line}: {found}: expected {right}")
