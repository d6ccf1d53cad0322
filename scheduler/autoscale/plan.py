"""From what is wanted to what is done: the order of steps in which no running task is killed; pure.

A worker goes by these steps, one batch at a time: it is drained; it consents; the target is lowered for it; the lower
target is confirmed; it is told to end and ends itself. Ended before the target is lowered, the fleet would replace it;
lowered twice for one worker, the fleet would shrink for ever, so what the target was and will be is written down before.
Every tick begins from what EC2 and the registry show, and goes on from there, whoever led before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler.autoscale import protocol
from scheduler.autoscale.book import Batch, Book
from scheduler.autoscale.census import KILL_AFTER_S, Census
from scheduler.autoscale.fleets.port import Condition, FleetView, Member
from scheduler.autoscale.protocol import Change, State, Worker

BATCH_SHARE = 0.25
"""At most this share of the serving workers is drained at a time, and at least one."""
SHORT_AFTER_S = 600.0
"""When the fleet has had fewer members than its target for so long, the target is lowered to what came and one more."""
SHORT_FOR_S = 600.0
SETTLE_AFTER_LOSS_S = 120.0
"""After members were lost nobody is drained for a while: what they held is on its way back into the queue."""
DEAD_AFTER_S = 300.0
"""A worker is dead when its heartbeat has not changed for so long and the task's deadline besides."""
BURIAL_EVERY_S = 300.0
MOST_STILLBORN = 3
"""After so many members in a row that never worked, no more are asked for until one does, or an operator resumes."""
TRY_AGAIN_S = 3600.0
"""One more is asked for after so long all the same: what was wrong may have been mended."""
MISSED_FOR_S = 60.0
"""A member is written off only after it was missed for so long: one whose record was lost enters again much sooner."""
KEEP_GONE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that people should see: its name and its fields."""

    name: str
    fields: Mapping[str, Any]
    is_alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One whom the leader ends, because it was told to and did not, or cannot any more."""

    instance_id: str
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that a plan is made from. `wanted` is the policy's capacity, None while it must not be known or used."""

    now_s: float
    view: FleetView
    census: Census
    book: Book
    wanted: int | None
    silent_s: Mapping[str, float]
    leader: str
    deadline_s: float
    """How long a task may run."""
    settings_no: int
    lowers_target: bool
    replaces: bool


@dataclass(slots=True, kw_only=True)
class Plan:
    """What to do, in this order: registry writes, then the target, then ends; `book` is written before any of it."""

    book: Book
    writes: list[Change] = field(default_factory=list)
    target: int | None = None
    ends: list[End] = field(default_factory=list)
    lowered: set[str] = field(default_factory=set)
    """Workers on their way out whom the target does not count any more."""
    events: list[Event] = field(default_factory=list)

    def tell(self, name: str, *, alarm: bool = False, **fields: Any) -> None:
        """Add an event."""
        self.events.append(Event(name=name, fields=fields, is_alarm=alarm))


def make(facts: Facts) -> Plan:
    """Return what to do now."""
    plan = Plan(book=facts.book)
    _settle_the_ended(facts, plan)
    _settle_the_dead(facts, plan)
    _settle_the_batch(facts, plan)
    _watch_for_shortage(facts, plan)
    if facts.view.condition is Condition.ENDED:
        plan.book = replace(plan.book, hold="the fleet is cancelled, failed or deleted")
    elif facts.wanted is not None:
        _approach(facts, plan, facts.wanted)
    return plan


# what has happened


def _settle_the_ended(facts: Facts, plan: Plan) -> None:
    for worker in facts.census.ended:
        plan.writes.append(protocol.gone(worker, now_s=facts.now_s, keep_s=KEEP_GONE_S))
        if worker.state not in {State.TERM, State.DRAINED}:
            plan.book = replace(plan.book, lost_s=facts.now_s)
            plan.tell("worker_lost", instance_id=worker.instance_id, state=worker.state.value)
    reporting = (*facts.census.serving, *facts.census.unready)
    if any(worker.registered_s > facts.book.buried_s for worker in reporting):
        plan.book = replace(plan.book, unreported=0)
    if any((worker.report.ready_s or 0.0) > facts.book.buried_s for worker in reporting):
        plan.book = replace(plan.book, unfit=0)
    if _is_hopeless(facts.book) and not _is_hopeless(plan.book):
        plan.tell("raises_allowed_again")


def _settle_the_dead(facts: Facts, plan: Plan) -> None:
    """Write off who never came and who died; end who was told to end and did not."""
    census, now_s = facts.census, facts.now_s
    for member in census.unreported:
        _settle_the_missing(facts, plan, member)
    for worker in census.stillborn:
        why = "its engine has never been ready"
        plan.writes.append(protocol.drain(worker, why=why, replace=facts.replaces, firm=True, now_s=now_s))
        if worker.instance_id not in facts.book.missing_s:
            plan.book = replace(plan.book, unfit=plan.book.unfit + 1)
            _stillborn(plan, worker.instance_id, why, now_s)
    missing = [one.instance_id for one in census.unreported] + [one.instance_id for one in census.stillborn]
    plan.book = replace(plan.book, missing_s={one: facts.book.missing_s.get(one, now_s) for one in missing})
    _end_the_late(facts, plan)
    limit_s = DEAD_AFTER_S + facts.deadline_s
    dead = [worker for worker in (*census.silent, *census.leaving) if _silence_s(facts, worker) > limit_s]
    if dead and not census.is_table_suspect and now_s - facts.book.buried_s > BURIAL_EVERY_S:
        worker = max(dead, key=lambda one: _silence_s(facts, one))
        why = f"no heartbeat for {_silence_s(facts, worker):.0f} s"
        plan.writes.append(protocol.bury(worker, why=why, now_s=now_s))
        plan.book = replace(plan.book, buried_s=now_s)
        plan.tell("worker_dead", alarm=True, instance_id=worker.instance_id, why=why)


def _settle_the_missing(facts: Facts, plan: Plan, member: Member) -> None:
    """Count one that never reported, once, and write it off; one older than the registry may be at work: only tell."""
    missing_since_s = facts.book.missing_s.get(member.instance_id)
    since_launch_s = facts.now_s - member.launched_s
    if member.launched_s < facts.book.began_s:
        if missing_since_s is None:
            plan.tell(
                "member_unknown", alarm=True, instance_id=member.instance_id, launched_s_ago=round(since_launch_s)
            )
        return
    why = f"it has not reported since its launch {since_launch_s:.0f} s ago"
    if missing_since_s is None:
        plan.book = replace(plan.book, unreported=plan.book.unreported + 1)
        _stillborn(plan, member.instance_id, why, facts.now_s)
    elif facts.now_s - missing_since_s > MISSED_FOR_S:
        plan.writes.append(protocol.disown(member.instance_id, why=why, now_s=facts.now_s))


def _end_the_late(facts: Facts, plan: Plan) -> None:
    """End who was told to and did not within two minutes, and the dead at once.

    When one after another never works, replacing them would be a bill for nothing: the target is lowered first.
    """
    census, view = facts.census, facts.view
    late = [one for one in census.ending if not one.dead and facts.now_s - one.since_s > KILL_AFTER_S]
    dead = [one for one in census.ending if one.dead]
    plan.ends += [End(instance_id=one.instance_id, replace=one.replace) for one in late]
    if not _is_hopeless(plan.book):
        plan.ends += [End(instance_id=one.instance_id, replace=True) for one in dead]
    elif not facts.lowers_target or view.target <= census.alive - len(dead):
        plan.ends += [End(instance_id=one.instance_id, replace=False) for one in dead]
    elif view.condition is Condition.ACTIVE:
        plan.target = census.alive - len(dead)


def _is_hopeless(book: Book) -> bool:
    return max(book.unreported, book.unfit) >= MOST_STILLBORN


def _silence_s(facts: Facts, worker: Worker) -> float:
    return facts.silent_s.get(worker.instance_id, 0.0)


def _stillborn(plan: Plan, instance_id: str, why: str, now_s: float) -> None:
    plan.book = replace(plan.book, buried_s=now_s)
    in_a_row = max(plan.book.unreported, plan.book.unfit)
    plan.tell("worker_stillborn", alarm=True, instance_id=instance_id, why=why, in_a_row=in_a_row)
    if in_a_row == MOST_STILLBORN:
        plan.tell("raises_frozen", alarm=True, in_a_row=in_a_row)


def _settle_the_batch(facts: Facts, plan: Plan) -> None:
    """Take those who consented one step further."""
    view, now_s = facts.view, facts.now_s
    drained = {worker.instance_id: worker for worker in facts.census.leaving if worker.state is State.DRAINED}
    for worker in drained.values():
        if worker.replace and not worker.is_recalled:  # the target stays, so nothing has to be confirmed
            plan.writes.append(protocol.terminate(worker, now_s=now_s))
    ready = [worker for worker in drained.values() if not worker.replace and not worker.is_recalled]
    if not facts.lowers_target:
        room = max(0, view.target - len(facts.census.ending) - view.min_size)
        plan.writes += [protocol.terminate(worker, now_s=now_s) for worker in ready[:room]]
        # The group cannot be smaller than its MinSize, so one that must go is replaced.
        firm = [worker for worker in ready[room:] if worker.firm]
        plan.writes += [protocol.terminate(worker, now_s=now_s, replace=True) for worker in firm]
        return
    batch = plan.book.batch
    if view.condition is not Condition.ACTIVE:
        return
    if batch is not None and view.target not in {batch.before, batch.after}:
        plan.tell("target_changed_elsewhere", alarm=True, expected=batch.after, found=view.target)
        batch = None
    if batch is None and ready and not facts.census.ending:
        ids = tuple(worker.instance_id for worker in ready)
        after = max(0, min(view.target, facts.census.alive - len(ids)))
        batch = Batch(instance_ids=ids, before=view.target, after=after)
    if batch is not None:
        plan.lowered = set(batch.instance_ids)
    if batch is not None and view.target == batch.after:
        plan.writes += [
            protocol.terminate(drained[one], now_s=now_s)
            for one in batch.instance_ids
            if one in drained and not drained[one].is_recalled
        ]
        batch = None
    elif batch is not None:
        plan.target = batch.after
    plan.book = replace(plan.book, batch=batch)


def _watch_for_shortage(facts: Facts, plan: Plan) -> None:
    """Notice capacity that never comes, and ask for less until some does."""
    book, now_s = plan.book, facts.now_s
    members = facts.census.alive
    if members >= facts.view.target:
        is_over = members > 0 and book.short_cap is not None and members >= book.short_cap
        plan.book = replace(
            book,
            short_since_s=None,
            short_cap=None if is_over or now_s > book.short_until_s else book.short_cap,
        )
        return
    since_s = book.short_since_s if book.short_since_s is not None else now_s
    plan.book = replace(book, short_since_s=since_s)
    if now_s - since_s <= SHORT_AFTER_S:
        return
    cap = members + 1
    plan.tell(
        "capacity_short", alarm=True, target=facts.view.target, members=members, lowered_to=cap, why=facts.view.trouble
    )
    plan.book = replace(plan.book, short_since_s=now_s, short_cap=cap, short_until_s=now_s + SHORT_FOR_S)
    if facts.view.condition is Condition.ACTIVE and plan.book.batch is None:
        plan.target = min(facts.view.target, cap)


# what is wanted


def _approach(facts: Facts, plan: Plan, wanted: int) -> None:
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
    recallable = [one for one in leaving if one.instance_id not in written and not one.firm][: wanted - present]
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
    if _is_hopeless(plan.book) and facts.now_s - plan.book.buried_s <= TRY_AGAIN_S:
        in_a_row = max(plan.book.unreported, plan.book.unfit)
        said = f"{in_a_row} new workers in a row never worked; look at their console and at conf.ini"
        plan.book = replace(plan.book, hold=f'{said}, then run "sd-scheduler fleet resume"')
        return
    if _is_hopeless(plan.book):
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
            plan.book = replace(plan.book, hold="all are busy; nobody is ended while it works")


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
