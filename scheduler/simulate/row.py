"""One policy's figures in a comparison, and which of several nobody beats; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scheduler.simulate.contenders import Contender
from scheduler.simulate.demand import Demand
from scheduler.simulate.model import Outcome

DAY_S = 86400.0
MONTH_S = 30 * DAY_S
_DIGITS = {
    "gpu_hours": 3,
    "cost_usd": 2,
    "month_usd": 2,
    "x_oracle": 3,
    "busy_share": 4,
    "wait_p50_s": 1,
    "wait_p95_s": 1,
    "wait_p99_s": 1,
    "late_share": 5,
}
_NOT_TOLD = {"contender", "family"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy's figures, or an oracle's, whose `contender` is None."""

    policy: str
    contender: Contender | None
    family: str
    gpu_hours: float
    cost_usd: float
    month_usd: float
    """The cost of 30 days like these."""
    x_oracle: float
    """The cost as a multiple of the oracle's that lets nobody be late."""
    busy_share: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    late_share: float
    killed: int
    interrupted: int
    unserved: int
    actions: int
    peak: int

    def figures(self) -> dict[str, Any]:
        """Return them in JSON's types, rounded to what means something."""
        told = {name: value for name, value in _fields(self).items() if name not in _NOT_TOLD}
        return {name: round(value, _DIGITS[name]) if name in _DIGITS else value for name, value in told.items()}


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Return the policies that no other beats in both cost and lateness, from the cheapest on; oracles stand apart."""
    best: list[Row] = []
    policies = (row for row in rows if row.contender is not None)
    for row in sorted(policies, key=lambda one: (one.gpu_hours, one.late_share)):
        if not best or row.late_share < best[-1].late_share:
            best.append(row)
    return best


def row_of(outcome: Outcome, contender: Contender | None, demand: Demand, unit_s: float) -> Row:
    """Return what came of it; `unit_s` are the billed seconds of the oracle that is the unit."""
    p50_s, p95_s, p99_s = outcome.waits_at_s(0.5, 0.95, 0.99)
    return Row(
        policy=outcome.policy,
        contender=contender,
        family=contender.family if contender else "oracle",
        gpu_hours=outcome.gpu_hours,
        cost_usd=outcome.cost_usd,
        month_usd=outcome.cost_usd * MONTH_S / demand.span_s,
        x_oracle=outcome.gpu_s / unit_s,
        busy_share=outcome.busy_share,
        wait_p50_s=p50_s,
        wait_p95_s=p95_s,
        wait_p99_s=p99_s,
        late_share=outcome.late_share,
        killed=outcome.killed,
        interrupted=outcome.interrupted,
        unserved=outcome.unserved,
        actions=outcome.actions,
        peak=outcome.peak,
    )


def _fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in type(row).__dataclass_fields__}
