"""Which notice ends the work on this instance, and when; pure. How the time until then is used, `StopSignal` says."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from scheduler.drain.notices import Kind, Notice

LEAD_S = 900.0
"""Maintenance is announced days ahead; work stops for it only so long before: more than the usual deadline of a task
(600 s), so that as a rule none is interrupted for it."""


def first_to_bind(notices: Iterable[Notice], *, now_s: float) -> tuple[float, Notice] | None:
    """Return the notice that ends the work first, after its deadline (epoch seconds); None while work goes on as ever.

    Others only mark the instance: what is merely likely, and maintenance that is far off.
    """
    deadlines = [(notice.deadline_s, notice) for notice in notices if notice.deadline_s is not None]
    binding = [(at_s, notice) for at_s, notice in deadlines if _binds(notice, at_s, now_s)]
    return min(binding, key=itemgetter(0), default=None)


def _binds(notice: Notice, deadline_s: float, now_s: float) -> bool:
    match notice.kind:
        case Kind.INTERRUPTION | Kind.ASG_TERMINATE:
            return True
        case Kind.MAINTENANCE:
            return deadline_s - now_s <= LEAD_S
        case Kind.REBALANCE:
            return False
