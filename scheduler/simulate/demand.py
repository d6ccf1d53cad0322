"""Demand made up from a short description such as ``sd:days=7,load=0.4,seed=1``; pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scheduler.domain.errors import ConfigError
from scheduler.simulate.demand_sd import like_a_service
from scheduler.simulate.model import Arrival

HOUR_S = 3600.0
DAY_S = 86400.0
MOST_TASKS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Arrivals by time from 0, one at least, and the time that they stand for."""

    name: str
    arrivals: Sequence[Arrival]
    span_s: float

    @classmethod
    def seen(cls, name: str, arrivals: Sequence[Arrival]) -> Demand:
        """Return what a trace tells: it stands for the time from its first task to its last, in whole hours."""
        return cls(name=name, arrivals=arrivals, span_s=max(1, math.ceil(arrivals[-1].at_s / HOUR_S)) * HOUR_S)

    @property
    def work_s(self) -> float:
        """GPU seconds of all tasks."""
        return math.fsum(one.service_s for one in self.arrivals)

    @property
    def mean_load(self) -> float:
        """How many GPUs the work would keep busy on average."""
        return self.work_s / self.span_s

    @property
    def busiest_hour_load(self) -> float:
        """The same for the hour in which most work arrives."""
        work: dict[int, float] = {}
        for one in self.arrivals:
            hour = int(one.at_s // HOUR_S)
            work[hour] = work.get(hour, 0.0) + one.service_s
        return max(work.values()) / HOUR_S

    def figures(self) -> dict[str, Any]:
        """Return what it is, in JSON's types."""
        return {
            "name": self.name,
            "tasks": len(self.arrivals),
            "days": round(self.span_s / DAY_S, 3),
            "work_gpu_hours": round(self.work_s / HOUR_S, 3),
            "mean_load": round(self.mean_load, 4),
            "busiest_hour_load": round(self.busiest_hour_load, 3),
        }


class _Number(NamedTuple):
    """What a key is when nobody says, and between which bounds it lies."""

    default: float
    least: float
    most: float


_Numbers = Mapping[str, float]
_DAYS, _SEED, _SERVICE = _Number(7, 0.001, 3660), _Number(1, 0, 2**53), _Number(25, 0.1, DAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of demand: its keys, what makes it, and about how many tasks that will be."""

    keys: Mapping[str, _Number]
    make: Callable[[_Numbers], Sequence[Arrival]]
    count: Callable[[_Numbers], float]


def generate(spec: str) -> Demand:
    """Return the demand that ``KIND`` or ``KIND:key=number,...`` describes; the same words give the same arrivals.

    Raises ConfigError with everything that is wrong, naming what is known.
    """
    name, _, rest = spec.partition(":")
    kind = KINDS.get(name.strip())
    if kind is None:
        raise ConfigError(
            [f"demand {spec!r} is of no known kind: expected {', '.join(KINDS)}, such as sd:days=7,load=0.4"]
        )
    problems: list[str] = []
    numbers = {key: number.default for key, number in kind.keys.items()}
    for pair in filter(str.strip, rest.split(",")):
        key, _, text = (part.strip() for part in pair.partition("="))
        if key not in kind.keys:
            problems.append(f"demand {name} has no key {key!r}: expected {', '.join(kind.keys)}")
            continue
        bounds = kind.keys[key]
        number = _float(text)
        if not bounds.least <= number <= bounds.most:
            problems.append(
                f"demand {name}: {key} is {text!r}: expected a number from {bounds.least:g} to {bounds.most:g}"
            )
        numbers[key] = number
    if not problems and kind.count(numbers) > MOST_TASKS:
        problems.append(f"demand {spec} is {kind.count(numbers):,.0f} tasks: at most {MOST_TASKS:,} are simulated")
    if problems:
        raise ConfigError(problems)
    arrivals = kind.make(numbers)
    if not arrivals:
        raise ConfigError([f"demand {spec} has no task: more days, or a higher rate, would bring some"])
    return Demand(name=spec, arrivals=arrivals, span_s=numbers["days"] * DAY_S)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _sd(numbers: _Numbers) -> Sequence[Arrival]:
    return like_a_service(days=numbers["days"], load=numbers["load"], seed=int(numbers["seed"]))


def _poisson(numbers: _Numbers) -> Sequence[Arrival]:
    return list(_random(random.Random(int(numbers["seed"])), numbers))


def _random(chance: random.Random, numbers: _Numbers) -> Iterator[Arrival]:
    at_s = chance.expovariate(numbers["rate"])
    while at_s < numbers["days"] * DAY_S:
        yield Arrival(at_s, numbers["service"])
        at_s += chance.expovariate(numbers["rate"])


def _burst(numbers: _Numbers) -> Sequence[Arrival]:
    count = math.ceil(numbers["days"] * DAY_S / numbers["every"])
    times = (number * numbers["every"] for number in range(count))
    return [Arrival(at_s, numbers["service"]) for at_s in times for _ in range(int(numbers["size"]))]


KINDS = {
    "sd": Kind(
        keys={"days": _DAYS, "load": _Number(0.39, 0.001, 1000), "seed": _SEED},
        make=_sd,
        count=lambda numbers: numbers["load"] * numbers["days"] * DAY_S / 25,
    ),
    "poisson": Kind(
        keys={"days": _DAYS, "rate": _Number(0.02, 1e-6, 1000), "service": _SERVICE, "seed": _SEED},
        make=_poisson,
        count=lambda numbers: numbers["rate"] * numbers["days"] * DAY_S,
    ),
    "burst": Kind(
        keys={
            "days": _DAYS,
            "every": _Number(3600, 1, 30 * DAY_S),
            "size": _Number(200, 1, 1_000_000),
            "service": _SERVICE,
        },
        make=_burst,
        count=lambda numbers: math.ceil(numbers["days"] * DAY_S / numbers["every"]) * numbers["size"],
    ),
}
