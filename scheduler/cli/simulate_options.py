"""The options of ``sd-scheduler simulate`` that describe the world, and what they and conf.ini make of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click
from pydantic import ValidationError

from scheduler.autoscale.policies.choice import KEYS
from scheduler.config_sections import Autoscaling, bounds
from scheduler.domain.errors import ConfigError
from scheduler.simulate.model import Shortage, Terms

USUAL = Terms()
HOUR_S = 3600.0
_SETTABLE = tuple(sorted({key for keys in KEYS.values() for key in keys}))


class Number(click.ParamType[float]):
    """A number, neither infinite nor none, from `least` (or from above it) to `most`."""

    def __init__(self, *, least: float = 0.0, most: float = math.inf, is_over: bool = False) -> None:
        self.name = "number"
        self._least, self._most, self._is_over = least, most, is_over

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises BadParameter."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        is_enough = number > self._least if self._is_over else number >= self._least
        if not is_enough or number > self._most or math.isinf(number):
            bound = f" and at most {self._most:g}" if self._most < math.inf else ""
            word = "over" if self._is_over else "of at least"
            self.fail(f"{value!r} is no number {word} {self._least:g}{bound}", param, ctx)
        return number


class _Range(click.ParamType[tuple[float, ...]]):
    """FROM:TO, numbers from 0 on; where `has_third` a whole one stands behind."""

    def __init__(self, *, has_third: bool = False) -> None:
        self.name = "FROM:TO:MOST" if has_third else "FROM:TO"
        self._count = 3 if has_third else 2

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            numbers = tuple(float(part) for part in str(value).split(":"))
        except ValueError:
            numbers = ()
        is_range = len(numbers) == self._count and 0 <= numbers[0] <= numbers[1] < math.inf
        if not is_range or any(not 0 <= most < math.inf or most % 1 for most in numbers[2:]):
            self.fail(f"{value!r} is not {self.name}, in numbers from 0 on", param, ctx)
        return numbers


def world_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; each is None, or empty, when not given."""
    workers, seconds, over_0 = "WORKERS", "SECONDS", Number(is_over=True)
    youngest_s, oldest_s = USUAL.counts_age_s
    least, most = click.IntRange(0, 1000), click.IntRange(1, 1000)
    options = (
        click.option("--min-capacity", type=least, metavar=workers, help="At least so many.  [0]"),
        click.option("--max-capacity", type=most, metavar=workers, help=f"At most so many.  [{USUAL.max_capacity}]"),
        click.option(
            "--boot", type=over_0, metavar=seconds, help=f"From a launch to the first task.  [{USUAL.boot_s:g}]"
        ),
        click.option(
            "--launch", type=Number(), metavar=seconds, help=f"Until EC2 launches a worker.  [{USUAL.launch_s:g}]"
        ),
        click.option(
            "--price", type=over_0, metavar="USD", help=f"An hour of a worker.  [{USUAL.price_usd_per_hour:g}]"
        ),
        click.option(
            "--reclaims",
            type=Number(),
            metavar="RATE",
            help=f"By EC2, a worker and hour.  [{USUAL.reclaims_per_hour:g}]",
        ),
        click.option("--switch", type=Number(), metavar=seconds, help=f"For another checkpoint.  [{USUAL.switch_s:g}]"),
        click.option(
            "--tick", type=Number(least=1, most=3600), metavar=seconds, help=f"Between decisions.  [{USUAL.tick_s:g}]"
        ),
        click.option(
            "--counts-age",
            type=_Range(),
            metavar="FROM:TO",
            help=f"Seconds that the queue's counts are old.  [{youngest_s:g}:{oldest_s:g}]",
        ),
        click.option(
            "--shortage",
            type=_Range(has_third=True),
            metavar="FROM:TO:MOST",
            multiple=True,
            help="Hours from the beginning in which EC2 launches none beyond MOST workers. Repeatable.",
        ),
        click.option(
            "--late-after", type=over_0, metavar=seconds, help=f"Waiting so long is late.  [{USUAL.late_after_s:g}]"
        ),
        click.option("--seed", type=click.IntRange(0), metavar="N", help=f"For the world's chance.  [{USUAL.seed}]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def terms(given: Mapping[str, Any], section: Autoscaling | None) -> Terms:
    """Return the world that the options describe; its bounds are the section's where there
    is one. Raises UsageError.
    """
    bounds_there = {key: getattr(section, key) for key in ("min_capacity", "max_capacity")} if section else {}
    names = {
        "min_capacity": "min_capacity",
        "max_capacity": "max_capacity",
        "boot": "boot_s",
        "launch": "launch_s",
        "price": "price_usd_per_hour",
        "reclaims": "reclaims_per_hour",
        "switch": "switch_s",
        "tick": "tick_s",
        "counts_age": "counts_age_s",
        "late_after": "late_after_s",
        "seed": "seed",
    }
    values = bounds_there | {name: given[option] for option, name in names.items() if given[option] is not None}
    shortages = tuple(
        Shortage(from_h * HOUR_S, until_h * HOUR_S, int(most)) for from_h, until_h, most in given["shortage"]
    )
    world = replace(USUAL, shortages=shortages, **values)
    if world.min_capacity > world.max_capacity:
        raise click.UsageError(
            f"--min-capacity {world.min_capacity} is more than --max-capacity, which is {world.max_capacity}"
        )
    return world


def settings(pairs: Sequence[str], section: Autoscaling | None, *, late_after_s: float | None) -> dict[str, Any]:
    """Return the policies' keys: the section's, if there is one, with those of `pairs` (KEY=VALUE) in their place.

    Without a section the wait aimed at is the one beyond which tasks are late (None: not given).
    Raises ConfigError with everything that is wrong.
    """
    texts: dict[str, str] = {}
    problems = []
    for pair in pairs:
        key, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or key not in _SETTABLE:
            problems.append(f"--set {pair}: expected KEY=VALUE with one of {', '.join(_SETTABLE)}")
        else:
            texts[key] = text
    read = Autoscaling()
    try:
        read = Autoscaling.model_validate(texts)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            key, said = str(detail["loc"][0]), detail.get("ctx", {}).get("error")
            right = str(said) if isinstance(said, ValueError) else f"expected {bounds(Autoscaling.model_fields[key])}"
            problems.append(f"--set {key}={texts[key]}: {right}")
    if problems:
        raise ConfigError(problems)
    there = {key: getattr(section, key) for key in _SETTABLE} if section else {}
    if section is None and late_after_s is not None:
        there["target_wait_s"] = min(86400.0, max(1.0, late_after_s))
    return there | {key: getattr(read, key) for key in texts}
