"""Runs several policies over one demand, and says which settings would have been cheapest for what is wished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from scheduler.autoscale.snapshot import Decision, Policy, PolicyState, Snapshot
from scheduler.config_sections import Autoscaling
from scheduler.simulate.contenders import Contender
from scheduler.simulate.demand import Demand
from scheduler.simulate.model import Outcome, Terms
from scheduler.simulate.oracle import oracle

DAY_S = 86400.0
MONTH_S = 30 * DAY_S
TOLD_EACH_S = 3600.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Settings for [autoscaling], and how they did."""

    row: Row
    settings: Mapping[str, str]
    """The keys to write, with their values."""
    is_met: bool
    """Whether no more were late than wished; otherwise these settings had the fewest."""
    is_full: bool
    """Whether all workers allowed were there at some time: more might have helped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a comparison."""

    demand: Demand
    world: Terms
    most_late: float
    rows: tuple[Row, ...]
    """The oracles first, then as asked for."""

    @property
    def advice(self) -> Advice | None:
        """The cheapest settings with few enough late, else those with the fewest; None where conf.ini can say none."""
        return _advice(self.rows, most_late=self.most_late)

    def figures(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        best = {row.policy for row in frontier(self.rows)}
        advice = self.advice
        return {
            "demand": self.demand.figures(),
            "world": asdict(self.world),
            "policies": [{**row.figures(), "on_frontier": row.policy in best} for row in self.rows],
            "recommendation": advice
            and {
                "policy": advice.row.policy,
                "settings": dict(advice.settings),
                "most_late": self.most_late,
                "is_met": advice.is_met,
                "late_share": advice.row.figures()["late_share"],
                "month_usd": advice.row.figures()["month_usd"],
            },
        }


def compare(
    contenders: Iterable[Contender],
    demand: Demand,
    world: Terms,
    *,
    most_late: float,
    tell: Callable[[str], None] = lambda _progress: None,
) -> Report:
    """Run the oracles, without patience and with as much as is not late, and each contender; `tell` hears how far it is."""
    tell("simulating the oracles")
    oracles = [oracle(demand.arrivals, world, patience_s=patience_s) for patience_s in (0.0, world.late_after_s)]
    unit_s = oracles[-1].gpu_s
    rows = [_row(outcome, None, demand, unit_s) for outcome in oracles]
    everybody = list(contenders)
    for number, contender in enumerate(everybody, 1):
        watched = _Watched(contender.policy, demand, f"simulating {number} of {len(everybody)}: {contender.name}", tell)
        outcome = replace(contender, policy=watched).run(demand.arrivals)
        rows.append(_row(outcome, contender, demand, unit_s))
    return Report(demand=demand, world=world, most_late=most_late, rows=tuple(rows))


class _Watched:
    """A policy that tells, each simulated hour, how far the simulation is."""

    def __init__(self, policy: Policy, demand: Demand, words: str, tell: Callable[[str], None]) -> None:
        self._policy = policy
        self._days = demand.span_s / DAY_S
        self._words = words
        self._tell = tell
        self._next_s = 0.0

    @property
    def name(self) -> str:
        return self._policy.name

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        if snapshot.at_s >= self._next_s:
            self._next_s = snapshot.at_s + TOLD_EACH_S
            self._tell(f"{self._words}, day {snapshot.at_s / DAY_S:.1f} of {self._days:.1f}")
        return self._policy.decide(snapshot, state)


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Return the policies that no other beats in both cost and lateness, from the cheapest on; oracles stand apart."""
    best: list[Row] = []
    policies = (row for row in rows if row.contender is not None)
    for row in sorted(policies, key=lambda one: (one.gpu_hours, one.late_share)):
        if not best or row.late_share < best[-1].late_share:
            best.append(row)
    return best


def _row(outcome: Outcome, contender: Contender | None, demand: Demand, unit_s: float) -> Row:
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


def _advice(rows: Sequence[Row], *, most_late: float) -> Advice | None:
    ours = [(row, row.contender) for row in rows if row.contender is not None and row.contender.keys is not None]
    if not ours:
        return None
    good = [one for one in ours if one[0].late_share <= most_late and not one[0].unserved]
    if good:
        row, contender = min(good, key=lambda one: one[0].gpu_hours)
    else:
        row, contender = min(ours, key=lambda one: (one[0].late_share, one[0].gpu_hours))
    shown = Autoscaling.model_validate(contender.keys or {}).shown()
    return Advice(
        row=row,
        settings={key: shown[key] for key in contender.keys or {}},
        is_met=bool(good),
        is_full=row.peak >= contender.terms.max_capacity,
    )
