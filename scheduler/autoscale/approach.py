"""What is wanted: the capacity brought nearer to it, up or down, without asking anybody busy to go; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from scheduler.autoscale import protocol
from scheduler.autoscale.fleets.port import Condition
from scheduler.autoscale.protocol import Worker
from scheduler.autoscale.steps import Facts, Plan, is_hopeless

BATCH_SHARE = 0.25
"""At most this share of the serving workers is drained at a time, and at least one."""
SETTLE_AFTER_LOSS_S = 120.0
"""After members were lost nobody is drained for a while: what they held is on its way back into the queue."""
TRY_AGAIN_S = 3600.0
"""One more is asked for after so long all the same: what was wrong may have been mended."""


def approach(facts: Facts, plan: Plan, wanted: int) -> None:
    """Bring the capacity nearer to what is wanted."""
    book, view, census = plan.book, facts.view, facts.census
    if book.short_cap is not None and facts.now_s < book.short_until_s:
        wanted = min(wanted, book.short_cap)
    leaving = [worker for worker in census.leaving if not worker.replace and not worker.is_recalled]
    ending = [worker for worker in census.ending if not worker.replace]
    target = plan.target if plan.target is not None else view.target
    going = [worker for worker in leaving if worker.instance_id not in plan.lowered]
    # What there will be when all that is under way has come to its end: the target may be missed both ways.
    asked = target - len(going) - (0 if facts.lowers_target else len(ending))
    present = census.alive - len(census.ending) - len(leaving)
    if not census.is_table_suspect:  # who is silent takes no work, whatever has become of it
        absent = len(census.silent) + sum(one.is_recalled and facts.is_silent(one) for one in census.leaving)
        asked, present = asked - absent, present - absent
    if wanted > max(asked, present):
        _grow(facts, plan, wanted, leaving, present=max(asked, present), asked=asked)
    elif wanted < max(asked, present):
        is_under_way = bool(leaving or ending or book.batch)
        _shrink(facts, plan, wanted, max(asked, present), is_under_way=is_under_way)
    elif wanted > asked and plan.target is None and view.condition is Condition.ACTIVE:
        plan.target = view.target + wanted - asked  # as many are there already: nothing is launched for it


def _grow(facts: Facts, plan: Plan, wanted: int, leaving: Iterable[Worker], *, present: int, asked: int) -> None:
    """Take drains back first, for they cost no boot; then raise the target."""
    written = {change.instance_id for change in plan.writes}
    recallable = [one for one in leaving if not (one.instance_id in written or one.firm or facts.is_silent(one))]
    recallable = recallable[: wanted - present]
    plan.writes += [protocol.recall(worker) for worker in recallable]
    if recallable:
        plan.tell("drain_recalled", instance_ids=[worker.instance_id for worker in recallable], wanted=wanted)
    if recallable and plan.book.batch is not None:
        plan.book = replace(plan.book, batch=None)  # what is left of it begins anew, with what the target is by then
        plan.target = None
        return
    missing = wanted - present - len(recallable)
    if missing <= 0 or plan.target is not None:
        return
    if is_hopeless(plan.book) and facts.now_s - plan.book.buried_s <= TRY_AGAIN_S:
        in_a_row = max(plan.book.unreported, plan.book.unfit)
        said = f"{in_a_row} new workers in a row never worked; look at their console and at conf.ini"
        plan.book = replace(plan.book, hold=f'{said}, then run "sd-scheduler fleet resume"')
        return
    if is_hopeless(plan.book):
        missing = 1 if not facts.census.booting else 0
    if facts.view.condition is not Condition.ACTIVE:
        plan.book = replace(plan.book, hold="the fleet is still modifying")
    else:
        plan.target = facts.view.target + present - asked + missing


def _shrink(facts: Facts, plan: Plan, wanted: int, future: int, *, is_under_way: bool) -> None:
    """Cancel what has not been launched; else ask idle workers to go, one batch at a time."""
    view, census = facts.view, facts.census
    if is_under_way:
        plan.book = replace(plan.book, hold="a batch of workers is on its way out")
    elif view.condition is not Condition.ACTIVE:
        plan.book = replace(plan.book, hold="the fleet is still modifying")
    elif facts.now_s - plan.book.lost_s < SETTLE_AFTER_LOSS_S:
        plan.book = replace(plan.book, hold="members were lost a moment ago")
    elif plan.target is not None:
        pass
    elif not facts.lowers_target and view.target < census.alive - len(census.ending):
        plan.target = census.alive - len(census.ending)  # launches nothing; each end lowers it again
    elif (unlaunched := view.target - census.alive) > 0:
        plan.target = view.target - min(unlaunched, future - wanted)
    else:
        candidates = (*census.serving, *census.unready)
        count = min(max(1, math.floor(len(candidates) * BATCH_SHARE)), future - wanted)
        if not facts.lowers_target:
            count = min(count, view.target - view.min_size)
        victims = sorted(filter(_is_idle, candidates), key=_first_to_go(facts))[: max(0, count)]
        plan.writes += [
            protocol.drain(worker, why=f"{wanted} workers are enough", now_s=facts.now_s) for worker in victims
        ]
        if not victims:
            plan.book = replace(plan.book, hold=_why_nobody(facts, count))


def _why_nobody(facts: Facts, count: int) -> str:
    """Say why nobody is asked to go although there are too many."""
    census = facts.census
    if not (census.serving or census.unready):
        return "nobody reports who could be asked to go" + ("; new ones boot" if census.booting else "")
    if count <= 0:
        return f"the fleet itself keeps at least {facts.view.min_size}"
    return "all are busy; nobody is ended while it works"


def _is_idle(worker: Worker) -> bool:
    return worker.report.running == 0 and worker.report.waiting == 0


def _first_to_go(facts: Facts) -> Callable[[Worker], tuple[Any, ...]]:
    """Order victims: who will go anyway, who follows an old configuration, the longest idle; the leader last."""

    def rank(worker: Worker) -> tuple[Any, ...]:
        return (
            worker.instance_id == facts.leader,
            not worker.report.leave_first,
            worker.report.settings_no == facts.settings_no,
            -worker.report.idle_s,
            worker.instance_id,
        )

    return rank
