"""What to write into [autoscaling]: the cheapest settings that keep tasks from being late, and what else there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.config_sections import Autoscaling
from scheduler.simulate.contenders import Contender
from scheduler.simulate.row import Row

RESERVE_SHARE = 0.25
"""Of the most workers used: so many more are allowed, for traffic is not the same again."""
MOST_CAPACITY = 1000
"""What max_capacity may be at most."""
WORTH_MORE = 0.75
"""A larger bound is advised when it leaves no more than this share of the late tasks, or few enough of them."""

Run = Callable[[Contender], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Larger:
    """The same settings with a larger bound."""

    max_capacity: int
    row: Row
    is_worth_it: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Settings for [autoscaling], and how they did."""

    row: Row
    """Simulated with these very settings."""
    settings: Mapping[str, str]
    """The keys to write, with their values."""
    is_met: bool
    """Whether no more were late than wished; otherwise these settings had the fewest."""
    allowed: int
    """The bound that was given; `settings` may have a smaller one that does as well."""
    better: Row | None
    """What others' policies did better and conf.ini cannot say: the wish for less, or,
    where it is not met, nearer to it."""
    larger: Larger | None
    """What a larger bound does, where the wish is not met with all workers in use."""

    def figures(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        larger = self.larger
        return {
            "policy": self.row.policy,
            "settings": dict(self.settings),
            "is_met": self.is_met,
            **_told(self.row),
            "peak": self.row.peak,
            "better": self.better
            and {"policy": self.better.policy, **_told(self.better), "killed": self.better.killed},
            "larger": larger
            and {"max_capacity": larger.max_capacity, **_told(larger.row), "is_worth_it": larger.is_worth_it},
        }


def advise(rows: Sequence[Row], *, most_late: float, run: Run) -> Advice | None:
    """Return the cheapest settings with few enough late, else those with the fewest; None where conf.ini can say none.

    `run` simulates what the rows do not hold: the advice with the bound that it needs, and with a larger one.
    """
    ours = [row for row in rows if row.contender is not None and row.contender.keys is not None]
    if not ours:
        return None
    good = [row for row in ours if row.late_share <= most_late and not row.unserved]
    if good:
        row = min(good, key=lambda one: one.gpu_hours)
    else:
        row = min(ours, key=lambda one: (one.late_share, one.gpu_hours))
    chosen = _contender(row)
    allowed = chosen.terms.max_capacity
    fitted = _fitted(row, most_late=most_late, run=run)
    return Advice(
        row=fitted,
        settings=_written(_contender(fitted)),
        is_met=bool(good),
        allowed=allowed,
        better=_better(rows, row, most_late=most_late, is_met=bool(good)),
        larger=None if good else _larger(row, most_late=most_late, run=run),
    )


def _fitted(row: Row, *, most_late: float, run: Run) -> Row:
    """Return the same with no larger a bound than was used and a reserve, as far as that does as well."""
    terms = _contender(row).terms
    enough = row.peak + max(1, math.ceil(RESERVE_SHARE * row.peak))
    if max(enough, terms.min_capacity) >= terms.max_capacity:
        return row
    fitted = run(_contender(row).bounded(max(enough, terms.min_capacity)))
    does_as_well = fitted.late_share <= max(most_late, row.late_share) and fitted.unserved <= row.unserved
    return fitted if does_as_well else row


def _larger(row: Row, *, most_late: float, run: Run) -> Larger | None:
    """Return what twice the bound does, where all workers allowed were in use."""
    terms = _contender(row).terms
    bound = min(MOST_CAPACITY, 2 * terms.max_capacity)
    if row.peak < terms.max_capacity or terms.max_capacity in {terms.min_capacity, bound}:
        return None
    found = run(_contender(row).bounded(bound))
    is_worth_it = not found.unserved and found.late_share <= max(most_late, WORTH_MORE * row.late_share)
    return Larger(max_capacity=bound, row=found, is_worth_it=is_worth_it)


def _better(rows: Sequence[Row], ours: Row, *, most_late: float, is_met: bool) -> Row | None:
    others = [row for row in rows if row.contender is not None and row.contender.keys is None and not row.unserved]
    good = [row for row in others if row.late_share <= most_late and (not is_met or row.gpu_hours < ours.gpu_hours)]
    nearer = [row for row in others if row.late_share < ours.late_share] if not is_met else []
    if good:
        return min(good, key=lambda row: row.gpu_hours)
    return min(nearer, key=lambda row: (row.late_share, row.gpu_hours), default=None)


def _contender(row: Row) -> Contender:
    if row.contender is None:
        raise ValueError(f"{row.policy} is no policy")
    return row.contender


def _written(contender: Contender) -> Mapping[str, str]:
    shown = Autoscaling.model_validate(contender.keys or {}).shown()
    return {key: shown[key] for key in contender.keys or {}}


def _told(row: Row) -> dict[str, Any]:
    figures = row.figures()
    return {name: figures[name] for name in ("late_share", "month_usd")}
