"""What every plan keeps to, whatever the fleet looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.autoscale import census, plan
from scheduler.autoscale.approach import BATCH_SHARE
from scheduler.autoscale.book import Batch, Book
from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member
from scheduler.autoscale.protocol import LEAVING, Report, State, Worker
from scheduler.autoscale.steps import Facts, Plan

NOW_S = 1_900_000_000.0
reports = st.builds(
    Report,
    running=st.integers(0, 1),
    waiting=st.integers(0, 2),
    idle_s=st.floats(0, 4000),
    ready_s=st.none() | st.just(NOW_S - 100),
    leave_first=st.sampled_from(["", "rebalance"]),
)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Any mixture of members and records, consistent or not."""
    names = [f"i-{number}" for number in range(draw(st.integers(0, 9)))]
    workers, members = [], []
    for name in names:
        launched_s = NOW_S - draw(st.floats(0, 5000))
        if draw(st.booleans()) or draw(st.booleans()):
            members.append(Member(instance_id=name, life=draw(st.sampled_from(Life)), launched_s=launched_s))
        if draw(st.booleans()) or draw(st.booleans()):
            state = draw(st.sampled_from(State))
            drain_no = draw(st.integers(1 if state in LEAVING else 0, 2))
            worker = Worker(
                instance_id=name,
                boot_id="boot-1",
                state=state,
                drain_no=drain_no,
                recall=draw(st.sampled_from([0, drain_no])),
                replace=draw(st.booleans()),
                dead=draw(st.booleans()),
                since_s=NOW_S - draw(st.floats(0, 400)),
                registered_s=launched_s,
                report=draw(reports),
            )
            workers.append(worker)
    view = FleetView(
        condition=draw(st.sampled_from([Condition.ACTIVE, Condition.ACTIVE, Condition.MODIFYING, Condition.ENDED])),
        target=draw(st.integers(0, 10)),
        members=tuple(members),
        min_size=draw(st.integers(0, 2)),
    )
    silent_s = {name: draw(st.sampled_from([0.0, 0.0, 0.0, 70.0, 2000.0])) for name in names}
    before = draw(st.integers(0, 10))
    batch = Batch(instance_ids=tuple(names[:2]), before=before, after=max(0, before - 2))
    book = Book(
        batch=draw(st.none() | st.just(batch)),
        unreported=draw(st.integers(0, 4)),
        short_cap=draw(st.none() | st.integers(1, 4)),
        short_until_s=NOW_S + draw(st.sampled_from([-1.0, 100.0])),
        short_since_s=draw(st.none() | st.just(NOW_S - 700)),
        lost_s=draw(st.sampled_from([0.0, NOW_S - 10])),
    )
    return Facts(
        now_s=NOW_S,
        view=view,
        census=census.take(view, workers, silent_s, now_s=NOW_S),
        book=book,
        wanted=draw(st.none() | st.integers(0, 10)),
        silent_s=silent_s,
        leader="i-0",
        deadline_s=600.0,
        settings_no=1,
        lowers_target=draw(st.booleans()),
        replaces=True,
    )


def seen(view: FleetView, workers: list[Worker], **given: Any) -> Facts:
    """Return the facts of a fleet whose workers have reported just now, unless `given` says otherwise."""
    silent_s = given.get("silent_s", {})
    base = Facts(
        now_s=NOW_S,
        view=view,
        census=census.take(view, workers, silent_s, now_s=NOW_S),
        book=Book(),
        wanted=view.target,
        silent_s=silent_s,
        leader="i-0",
        deadline_s=600.0,
        settings_no=1,
        lowers_target=True,
        replaces=True,
    )
    return replace(base, **given)


def changed_to(drawn: Plan, state: State) -> list[str]:
    return [change.instance_id for change in drawn.writes if change.sets.get("state") is state]


@given(facts())
def test_only_idle_workers_are_asked_to_go_and_few_at_a_time(given_facts):
    drawn = plan.make(given_facts)
    stillborn = {worker.instance_id for worker in given_facts.census.stillborn}
    asked = [one for one in changed_to(drawn, State.DRAIN) if one not in stillborn]
    candidates = (*given_facts.census.serving, *given_facts.census.unready)
    idle = {worker.instance_id for worker in candidates if worker.report.running == worker.report.waiting == 0}
    assert set(asked) <= idle
    assert len(asked) <= max(1, len(candidates) * BATCH_SHARE)
    if asked:
        assert given_facts.wanted is not None
        assert not given_facts.census.leaving or all(worker.replace for worker in given_facts.census.leaving)
        assert max(given_facts.view.target, given_facts.census.alive) - len(asked) >= given_facts.wanted


@given(facts())
def test_who_is_told_to_end_has_consented_or_is_dead(given_facts):
    drawn = plan.make(given_facts)
    drained = {worker.instance_id for worker in given_facts.census.leaving if worker.state is State.DRAINED}
    for change in drawn.writes:
        if change.sets.get("state") is State.TERM:
            assert change.instance_id in drained or change.sets.get("dead")


@given(facts())
def test_only_who_was_told_to_end_is_ended(given_facts):
    drawn = plan.make(given_facts)
    ending = {worker.instance_id: worker for worker in given_facts.census.ending}
    for end in drawn.ends:
        worker = ending[end.instance_id]
        assert worker.dead or given_facts.now_s - worker.since_s > census.KILL_AFTER_S


@given(facts())
def test_the_target_is_touched_only_while_nothing_else_changes_it(given_facts):
    drawn = plan.make(given_facts)
    if drawn.target is not None:
        assert given_facts.view.condition is Condition.ACTIVE
        assert drawn.target >= 0


@given(facts())
def test_the_target_never_falls_below_those_who_have_not_consented(given_facts):
    drawn = plan.make(given_facts)
    found = given_facts.census
    if drawn.target is not None and drawn.target < given_facts.view.target:
        dead = sum(worker.dead for worker in found.ending)
        consented = sum(worker.state is State.DRAINED for worker in found.leaving) + len(found.ending)
        batch = len(given_facts.book.batch.instance_ids) if given_facts.book.batch else 0
        assert drawn.target >= min(given_facts.view.target, found.alive - max(consented, batch) - dead)


def test_who_must_go_from_a_group_at_its_minimum_is_replaced():
    going = [
        Worker(instance_id=f"i-{n}", boot_id="b", state=State.DRAINED, drain_no=1, firm=n == 1, registered_s=NOW_S - 60)
        for n in range(2)
    ]
    members = [Member(instance_id=one.instance_id, life=Life.RUNNING, launched_s=NOW_S - 90) for one in going]
    view = FleetView(condition=Condition.ACTIVE, target=2, members=tuple(members), min_size=2)
    drawn = plan.make(seen(view, going, lowers_target=False))
    assert [(change.instance_id, change.sets["replace"]) for change in drawn.writes if "replace" in change.sets] == [
        ("i-1", True)
    ]
    assert changed_to(drawn, State.TERM) == ["i-1"]


def test_a_batch_decided_before_others_came_is_decided_anew():
    workers = [
        Worker(instance_id="i-1", boot_id="b", state=State.DRAINED, drain_no=1, registered_s=NOW_S - 900),
        Worker(instance_id="i-2", boot_id="b", state=State.ACTIVE, registered_s=NOW_S - 900),
    ]
    members = tuple(Member(instance_id=one.instance_id, life=Life.RUNNING, launched_s=NOW_S - 999) for one in workers)
    view = FleetView(condition=Condition.ACTIVE, target=2, members=members)
    alone = Batch(instance_ids=("i-1",), before=2, after=0)  # the list did not show i-2 yet
    assert plan.make(seen(view, workers, wanted=1, book=Book(batch=alone))).target == 1


@given(facts())
def test_nobody_goes_while_the_wish_is_unknown(given_facts):
    drawn = plan.make(replace(given_facts, wanted=None))
    stillborn = {worker.instance_id for worker in given_facts.census.stillborn}
    assert set(changed_to(drawn, State.DRAIN)) <= stillborn
    assert drawn.target is None or drawn.target <= given_facts.view.target


def test_the_dead_are_judged_by_the_longest_task_that_they_may_run_themselves():
    def buried(silent_s: float) -> list[str]:
        told = Report(ready_s=NOW_S - 9000, deadline_s=3 * 3600.0)
        worker = Worker(instance_id="i-1", boot_id="b", state=State.ACTIVE, registered_s=NOW_S - 9000, report=told)
        member = Member(instance_id="i-1", life=Life.RUNNING, launched_s=NOW_S - 9000)
        view = FleetView(condition=Condition.ACTIVE, target=1, members=(member,))
        facts = seen(view, [worker], silent_s={"i-1": silent_s})
        return changed_to(plan.make(facts), State.TERM)

    assert buried(300 + 3 * 3600.0) == []
    assert buried(301 + 3 * 3600.0) == ["i-1"]
