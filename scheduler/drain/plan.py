"""What to do about the notices there are: keep working, finish what runs, or interrupt it, and when; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from scheduler.domain.errors import Counts
from scheduler.drain.notices import Kind, Notice

MARGIN_S = 20.0
"""So long before the deadline nothing may run any more: storing and recording what is done, giving back what is not and
leaving the registry are a few calls, each tried again once or twice. It also covers a clock that is off by a few seconds,
for AWS's times are compared with this host's."""

LEAD_S = 900.0
"""Maintenance is announced days ahead; work stops for it only so long before: more than the usual deadline of a task
(600 s), so that as a rule none is interrupted for it."""

COUNTS = Counts.NOTHING
"""What being interrupted for a notice costs a task: its run is refunded, for the instance was at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now; to be made anew as time passes."""

    leaves: bool
    """Take nothing more, give back at once what has not started, and ask to go. Otherwise work goes on as ever."""
    interrupt_at_s: float
    """When to interrupt what still runs, epoch seconds; the present when it is due, infinite when nothing demands it."""
    goes_first: bool
    """Whether this instance is the first to choose when the fleet has too many."""
    why: str
    """The notice that decided; empty when there is none."""


def plan(notices: Iterable[Notice], *, now_s: float, remaining_s: float | None, margin_s: float = MARGIN_S) -> Plan:
    """Decide about one running task by the `notices` there are. `now_s` is epoch seconds.

    `remaining_s` is how long the task will still take, as measured; 0 when nothing runs, None when unknown. What fits
    before the first deadline is finished, and interrupted all the same should it overrun. What cannot fit is
    interrupted at once, so that another worker begins the sooner. What is unknown may run while there is time.
    """
    known = list(notices)
    deadlines = [(notice.deadline_s, notice) for notice in known if notice.deadline_s is not None]
    binding = [(at_s, notice) for at_s, notice in deadlines if _binds(notice, at_s, now_s)]
    if not binding:
        why = known[0].detail if known else ""
        return Plan(leaves=False, interrupt_at_s=math.inf, goes_first=bool(known), why=why)
    deadline_s, first = min(binding, key=itemgetter(0))
    last_s = deadline_s - margin_s
    does_not_fit = remaining_s is not None and now_s + remaining_s > last_s
    interrupt_at_s = now_s if does_not_fit else max(now_s, last_s)
    return Plan(leaves=True, interrupt_at_s=interrupt_at_s, goes_first=True, why=first.detail)


def _binds(notice: Notice, deadline_s: float, now_s: float) -> bool:
    """Tell whether a notice ends the work here, rather than only marking the instance."""
    match notice.kind:
        case Kind.INTERRUPTION | Kind.ASG_TERMINATE:
            return True
        case Kind.MAINTENANCE:
            return deadline_s - now_s <= LEAD_S
        case Kind.REBALANCE:
            return False
