"""Runs several policies over one demand, and says which settings would have been cheapest for what is wished."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from scheduler.autoscale.snapshot import Decision, Policy, PolicyState, Snapshot
from scheduler.simulate.advice import Advice, advise
from scheduler.simulate.contenders import Contender
from scheduler.simulate.demand import Demand
from scheduler.simulate.model import Terms
from scheduler.simulate.oracle import oracle
from scheduler.simulate.row import DAY_S, Row, frontier, row_of

TOLD_EACH_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a comparison."""

    demand: Demand
    world: Terms
    most_late: float
    rows: tuple[Row, ...]
    """The oracles first, then as asked for."""
    advice: Advice | None
    """None where conf.ini can say none of them."""

    def figures(self) -> dict[str, Any]:
        """Return all of it in JSON's types."""
        best = {row.policy for row in frontier(self.rows)}
        return {
            "demand": self.demand.figures(),
            "world": asdict(self.world),
            "policies": [{**row.figures(), "on_frontier": row.policy in best} for row in self.rows],
            "recommendation": self.advice and {**self.advice.figures(), "most_late": self.most_late},
        }


def compare(
    contenders: Iterable[Contender],
    demand: Demand,
    world: Terms,
    *,
    most_late: float,
    tell: Callable[[str], None] = lambda _progress: None,
) -> Report:
    """Run the oracles, without patience and with as much as is not late, and each contender; `tell` hears how far it
    is.

    What is recommended runs once or twice more, with other bounds.
    """
    tell("simulating the oracles")
    oracles = [oracle(demand.arrivals, world, patience_s=patience_s) for patience_s in (0.0, world.late_after_s)]
    unit_s = oracles[-1].gpu_s

    def run(contender: Contender, words: str) -> Row:
        watched = _Watched(contender.policy, demand, words, tell)
        outcome = replace(contender, policy=watched).run(demand.arrivals)
        return row_of(outcome, contender, demand, unit_s)

    def run_bounded(contender: Contender) -> Row:
        return run(contender, f"simulating {contender.name} with at most {contender.terms.max_capacity}")

    everybody = list(contenders)
    rows = [row_of(outcome, None, demand, unit_s) for outcome in oracles]
    rows += [
        run(contender, f"simulating {number} of {len(everybody)}: {contender.name}")
        for number, contender in enumerate(everybody, 1)
    ]
    advice = advise(rows, most_late=most_late, run=run_bounded)
    return Report(demand=demand, world=world, most_late=most_late, rows=tuple(rows), advice=advice)


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
