"""What has happened to the fleet: who ended, who is missed or dead, the batch on its way,
capacity that never comes; pure.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.autoscale import protocol
from scheduler.autoscale.book import Batch
from scheduler.autoscale.census import KILL_AFTER_S
from scheduler.autoscale.fleets.port import Condition, Member
from scheduler.autoscale.protocol import State, Worker
from scheduler.autoscale.steps import MOST_STILLBORN, End, Facts, Plan, is_hopeless

SHORT_AFTER_S = 600.0
"""When the fleet has had fewer members than its target for so long, the target is lowered to what came and one more."""
SHORT_FOR_S = 600.0
DEAD_AFTER_S = 300.0
"""A worker is dead when its heartbeat has not changed for so long and the task's deadline besides."""
BURIAL_EVERY_S = 300.0
SUSPECT_FOR_S = 1800.0
"""The table is not suspected for longer: who is silent still is dead,
for the leaders read and write it all the while."""
MISSED_FOR_S = 60.0
"""A member is written off only after it was missed for so long: one whose record was lost enters again much sooner."""
KEEP_GONE_S = 3600.0


def settle(facts: Facts, plan: Plan) -> None:
    """Add to a plan what follows from what EC2 and the registry show, whatever is wanted."""
    _settle_the_ended(facts, plan)
    _settle_the_dead(facts, plan)
    _settle_the_batch(facts, plan)
    _watch_for_shortage(facts, plan)


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
    if is_hopeless(facts.book) and not is_hopeless(plan.book):
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
    dead = [worker for worker in (*census.silent, *census.leaving) if _overdue_s(facts, worker) > 0]
    lately = sum(_overdue_s(facts, worker) <= SUSPECT_FOR_S for worker in census.silent)
    if dead and not census.is_suspect_by(lately) and now_s - facts.book.buried_s > BURIAL_EVERY_S:
        worker = max(dead, key=facts.silence_s)
        why = f"no heartbeat for {facts.silence_s(worker):.0f} s"
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
    if not is_hopeless(plan.book):
        plan.ends += [End(instance_id=one.instance_id, replace=True) for one in dead]
    elif not facts.lowers_target or view.target <= census.alive - len(dead):
        plan.ends += [End(instance_id=one.instance_id, replace=False) for one in dead]
    elif view.condition is Condition.ACTIVE:
        plan.target = census.alive - len(dead)


def _overdue_s(facts: Facts, worker: Worker) -> float:
    """Return for how long a worker has been silent beyond what a running task explains;
    negative while it may be that.
    """
    deadline_s = max(facts.deadline_s, worker.report.deadline_s)
    return facts.silence_s(worker) - DEAD_AFTER_S - deadline_s


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
    if batch is not None and view.target == batch.before and batch.after < _left_without(batch.instance_ids, facts):
        batch = None  # members it did not know have come since: they have not consented
    if batch is None and ready and not facts.census.ending:
        ids = tuple(worker.instance_id for worker in ready)
        batch = Batch(instance_ids=ids, before=view.target, after=_left_without(ids, facts))
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


def _left_without(instance_ids: tuple[str, ...], facts: Facts) -> int:
    """Return the target that the members left over need, never more than it is."""
    return max(0, min(facts.view.target, facts.census.alive - len(instance_ids)))


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
    may_lower = facts.wanted is not None and plan.book.batch is None  # a pause leaves the fleet as it is
    if facts.view.condition is Condition.ACTIVE and may_lower:
        plan.target = min(facts.view.target, cap)
