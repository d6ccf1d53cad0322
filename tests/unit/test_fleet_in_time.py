"""The fleet's leader, members and plan together, in virtual time: growing, shrinking,
changing hands, losing members.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fleet_in_memory import Faults, Wishes, World
from structlog.testing import capture_logs

from scheduler.autoscale import protocol
from scheduler.autoscale.book import Pause
from scheduler.autoscale.policies.step import Step
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.ports import QueueCounts, Written
from scheduler.autoscale.protocol import NEVER_BOOTED, Change, State
from scheduler.domain.errors import Unavailable


@pytest.fixture
def wishes() -> Wishes:
    return Wishes()


def states(world: World) -> dict[str, State]:
    return {worker.instance_id: worker.state for worker in world.state.registry().workers}


def serving(world: World) -> list[str]:
    return [host.instance_id for host in world.hosts.values() if host.ready_s is not None and not host.intake.why]


def test_it_grows_from_nothing_and_shrinks_to_nothing_again():
    world = World()
    world.run(120)
    assert world.fleet.alive == []
    world.send(40)
    world.run_until(lambda: all(task.ended_s for task in world.tasks))
    assert world.most_alive == 4
    world.run_until(lambda: world.fleet.alive == [], within_s=1800)
    assert world.fleet.target == 0
    world.run(180)
    assert set(states(world).values()) == {State.GONE}
    assert world.violations == []


def test_a_batch_goes_in_the_order_of_the_rules(wishes, monkeypatch):
    world = World(policy=wishes)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    wishes.wanted = 0
    change, targets = world.state.change, []

    def seen(wanted: Change) -> Written:
        if wanted.sets.get("state") is State.TERM:
            targets.append(world.fleet.target)
        return change(wanted)

    monkeypatch.setattr(world.state, "change", seen)
    world.run_until(lambda: len(world.fleet.alive) == 3)
    assert set(targets) == {3}, "the target is lowered before anybody is told to end"
    world.run_until(lambda: world.fleet.alive == [])
    assert world.violations == []


def test_who_leads_goes_last(wishes):
    world = World(policy=wishes, has_outsider=False)
    world.fleet.set_target(3)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    world.run(60)
    book = world.state.book()
    assert book is not None
    wishes.wanted = 0
    world.run_until(lambda: len(world.fleet.alive) == 1)
    assert world.fleet.alive == [book.leader]
    world.run_until(lambda: world.fleet.alive == [])


def test_the_busy_are_never_asked_to_go(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    world.send(2, service_s=500)
    wishes.wanted = 0
    world.run(300)
    assert len(world.fleet.alive) == 2
    world.run_until(lambda: world.fleet.alive == [])
    assert all(task.runs == 1 for task in world.tasks)


def test_a_drain_is_recalled_when_work_returns(wishes):
    world = World(policy=wishes)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    launched = set(world.fleet.members)
    wishes.wanted = 3
    world.run_until(lambda: State.DRAIN in states(world).values())
    wishes.wanted = 4
    world.run_until(lambda: set(states(world).values()) == {State.ACTIVE})
    world.run(300)
    assert set(world.fleet.members) == launched
    assert world.fleet.target == 4
    assert len(serving(world)) == 4


def test_the_lead_is_taken_over_when_its_holder_dies(wishes):
    world = World(policy=wishes, has_outsider=False)
    world.fleet.set_target(2)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    world.run(60)
    book = world.state.book()
    assert book is not None
    world.hosts[book.leader].is_running = False  # stopped by SIGSTOP: it neither leads nor reports
    wishes.wanted = 3
    world.run_until(lambda: world.fleet.target == 3, within_s=120)
    found = world.state.book()
    assert found is not None
    assert found.leader != book.leader


def test_of_two_that_lead_at_once_one_raises_the_target(wishes, monkeypatch):
    world = World(policy=wishes)
    one, other = world.outsider, world.new_leader("other", None, looks_once=True)
    wishes.wanted = 3
    counts, outcomes = world.counts, []

    def meanwhile() -> QueueCounts:
        monkeypatch.setattr(world, "counts", counts)
        outcomes.append(other.tick())  # between the first one's look and its decision
        return counts()

    monkeypatch.setattr(world, "counts", meanwhile)
    outcomes.append(one.tick())
    assert [outcome.leads for outcome in outcomes] == [True, False]
    assert [target for _, target in world.fleet.modified] == [3]


def test_who_never_reports_is_written_off_and_replaced_but_not_for_ever(wishes):
    world = World(policy=wishes, faults=Faults(silent_death=1.0))
    wishes.wanted = 2
    world.run(6 * 3600)
    assert len(world.fleet.members) <= 2
    assert world.launches <= 4 + 6, "one is tried each hour"
    book = world.state.book()
    assert book is not None
    assert book.unreported >= 3
    wishes.wanted = 4
    world.state.set_pause(Pause(until_s=world.clock.now(), by="ann"))
    world.run(120)
    assert world.fleet.target == 4, "an operator has resumed"


def test_one_that_never_reports_counts_once_however_often_its_record_cannot_be_written(wishes, monkeypatch):
    world = World(policy=wishes, faults=Faults(silent_death=1.0))
    wishes.wanted = 1
    change = world.state.change

    def lost(wanted: Change) -> Written:
        if wanted.sets.get("boot_id") == NEVER_BOOTED:
            raise Unavailable("throttled")
        return change(wanted)

    monkeypatch.setattr(world.state, "change", lost)
    world.run(3600)
    book = world.state.book()
    assert book is not None
    assert (len(world.fleet.alive), book.unreported) == (1, 1)


def test_a_step_that_fails_is_told_and_done_at_the_next_tick(wishes, monkeypatch):
    world = World(policy=wishes)
    wishes.wanted = 1
    set_target = world.fleet.set_target

    def refused(_capacity: int) -> None:
        raise Unavailable("request limit exceeded")

    monkeypatch.setattr(world.fleet, "set_target", refused)
    assert world.outsider.tick().failed_steps == ("target",)
    monkeypatch.setattr(world.fleet, "set_target", set_target)
    assert world.outsider.tick().failed_steps == ()
    assert world.fleet.target == 1
    assert world.outsider.tick().look.is_modifying


def test_a_registry_that_is_lost_costs_nobody_anything(wishes):
    world = World(policy=wishes)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    world.run(1200)
    before = world.fleet.alive
    world.send(4, service_s=900)
    world.state.lose()
    world.run(2400)
    assert world.fleet.alive == before
    assert set(states(world).values()) == {State.ACTIVE}
    assert all(task.ended_s for task in world.tasks)
    del world.state.records[before[0]]
    world.run(1200)
    assert world.fleet.alive == before
    assert world.violations == []


def test_members_older_than_the_registry_are_told_of_and_left_alone(wishes):
    world = World(policy=wishes, faults=Faults(silent_death=1.0))
    world.outsider_is_away = True
    world.fleet.set_target(2)
    wishes.wanted = 2
    world.run(600)
    world.outsider_is_away = False
    with capture_logs() as logs:
        world.run(4 * 3600)
    told = [entry["instance_id"] for entry in logs if entry["event"] == "member_unknown"]
    assert sorted(told) == sorted(world.fleet.alive), "each once"
    assert world.launches == 2


@pytest.mark.parametrize("asks", ["a worker", "an operator"])
def test_who_is_to_go_for_good_goes_although_more_are_wanted(wishes, asks):
    world = World(policy=wishes)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    going = next(iter(world.hosts.values()))
    world.send(3, service_s=60)
    if asks == "a worker":
        going.member.leave("its disk is full", replace=False)
    else:
        seen = world.state.worker(going.instance_id)
        world.state.change(protocol.drain(seen, why="ann asked", firm=True, now_s=world.clock.now()))
    world.run(30)
    wishes.wanted = 4
    world.run_until(lambda: going.instance_id not in world.fleet.alive)
    world.run_until(lambda: len(serving(world)) == 4)
    assert world.violations == []


def test_a_recall_does_not_hold_one_that_wants_to_go(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    going = next(iter(world.hosts.values()))
    seen = world.state.worker(going.instance_id)
    drained = world.state.change(protocol.drain(seen, why="idle", now_s=world.clock.now())).worker
    going.member.leave("its disk is full", replace=True)
    world.state.change(protocol.recall(drained))
    world.run_until(lambda: going.instance_id not in world.fleet.alive)
    world.run_until(lambda: len(serving(world)) == 2)
    assert world.violations == []


def test_a_dead_worker_is_written_off_after_the_longest_task(wishes):
    world = World(policy=wishes)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    dead = next(iter(world.hosts.values()))
    world.kill(dead)
    dead.is_running = True  # its supervisor believes it runs: it hangs
    world.run(880)
    assert dead.instance_id in world.fleet.alive
    world.run(200)
    assert dead.instance_id not in world.fleet.alive
    world.run_until(lambda: len(serving(world)) == 3)
    assert world.violations == []


def test_nobody_is_written_off_while_it_is_the_table_that_is_down(wishes):
    world = World(policy=wishes)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    world.state.is_down = True
    world.run(7200)
    assert serving(world) == [], "without heartbeats nothing new is begun"
    world.state.is_down = False
    world.run(120)
    assert len(serving(world)) == 3
    assert set(states(world).values()) == {State.ACTIVE}


def test_one_whose_record_makes_no_sense_is_left_alone_and_holds_up_nobody(wishes):
    world = World(policy=wishes)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    odd, *others = world.fleet.alive
    record = world.state.records[odd]
    whole = dict(record)
    del record["drain_no"]
    world.run(300)
    assert odd not in serving(world), "it cannot know what is asked of it"
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 3)
    wishes.wanted = 1
    world.run_until(lambda: world.fleet.alive == [odd])
    world.run(4 * 3600)
    assert world.fleet.alive == [odd]
    book = world.state.book()
    assert book is not None
    assert (book.unreported, book.unfit, book.hold) == (0, 0, "")
    assert set(others).isdisjoint(world.fleet.alive)
    world.state.records[odd] = whole
    world.run_until(lambda: serving(world) == [odd])
    assert world.violations == []


def test_a_record_that_makes_no_sense_is_deleted_and_its_worker_enters_anew(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    odd = world.fleet.alive[0]
    del world.state.records[odd]["drain_no"]
    world.run(300)
    del world.state.records[odd]
    world.run_until(lambda: len(serving(world)) == 2)
    assert world.violations == []


def test_what_a_policy_does_not_remember_writing_is_forgotten():
    world = World(policy=Threshold(scale_out_threshold=0, cooldown_s=0))
    world.run(60)
    book = world.state.book()
    assert book is not None
    odd = replace(book, version=book.version + 1, policy_state={"capacity": 1, "changed_s": "long ago"})
    assert world.state.write_book(odd, seen=book.version)
    world.send(40)
    with capture_logs() as logs:
        world.run_until(lambda: all(task.ended_s for task in world.tasks))
    assert [entry["event"] for entry in logs].count("policy_state_odd") == 1


def test_what_was_counted_while_another_led_is_not_counted_again(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    for _ in range(6):
        world.send(20, service_s=5.0)
        world.run(120)
        holder = world.state.book()
        assert holder is not None
        world.state.write_book(replace(holder, version=holder.version + 1, leader=""), seen=holder.version)
        world.outsider.tick()  # it leads for a moment, as a cron job or a sender does
        world.outsider.resign()
    world.run(60)
    book = world.state.book()
    assert book is not None
    assert book.received_total <= len(world.tasks)
    assert book.finished_total <= len(world.tasks)


def test_the_dead_are_found_by_leaders_who_look_only_once(wishes):
    world = World(policy=wishes, has_outsider=False)
    wishes.wanted = 1

    def lambda_invoked() -> None:
        world.new_leader("lambda", None, looks_once=True).tick()
        world.after(60.0, lambda_invoked)

    world.after(1.0, lambda_invoked)
    world.run_until(lambda: len(serving(world)) == 1)
    dead = hang(world)
    world.run(3600)
    assert dead.instance_id not in world.fleet.alive
    assert len(serving(world)) == 1
    assert world.violations == []


def test_two_dead_of_two_are_written_off_in_the_end(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    dead = {hang(world).instance_id, hang(world).instance_id}
    world.run(2 * 3600)
    assert dead.isdisjoint(world.fleet.alive)
    assert len(serving(world)) == 2


def test_who_is_silent_counts_as_no_capacity(wishes):
    world = World(policy=wishes)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    hang(world)
    world.run(300)
    assert len(serving(world)) == 3, "long before it may be written off"
    assert world.violations == []


def hang(world: World) -> Any:
    """Let a worker's daemon die without a word, and its supervisor believe that it runs."""
    host = next(host for host in world.hosts.values() if host.member is not None and host.is_running)
    world.kill(host)
    host.is_running = True
    host.member = None
    return host


def test_a_leaders_wrong_clock_leaves_nothing_that_stands_in_the_way(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    book = world.state.book()
    assert book is not None
    ahead_s = world.clock.now() + 12 * 3600
    odd = replace(book, version=book.version + 1, lost_s=ahead_s, buried_s=ahead_s, written_s=ahead_s, leader="gone")
    assert world.state.write_book(odd, seen=book.version)
    wishes.wanted = 0
    world.run(1800)
    assert world.fleet.alive == []


def test_a_worker_whose_clock_is_a_day_ahead_is_missed_like_any(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    phantom = protocol.register(None, instance_id="i-phantom", boot_id="b", now_s=world.clock.now() + 86400)
    assert phantom is not None
    world.state.change(phantom)
    wishes.wanted = 0
    world.run(3600)
    assert world.fleet.alive == []
    assert states(world).get("i-phantom") in {None, State.GONE}


def test_capacity_that_never_comes_is_noticed_and_less_is_asked_for(wishes):
    world = World(policy=wishes)
    world.fleet.capacity_left = 1
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 1)
    assert world.fleet.target == 4
    world.run(900)
    assert world.fleet.target == 2
    world.fleet.capacity_left = 10
    world.fleet.set_target(world.fleet.target)
    world.run_until(lambda: len(serving(world)) == 4, within_s=3600)


def test_a_pause_leaves_the_fleet_as_it_is(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    world.state.set_pause(Pause(until_s=world.clock.now() + 600, by="ann"))
    wishes.wanted = 4
    world.run(590)
    assert world.fleet.target == 2
    book = world.state.book()
    assert book is not None
    assert "paused by ann" in book.hold
    world.run(60)
    assert world.fleet.target == 4


@pytest.mark.parametrize(
    "rule", [Threshold(scale_out_threshold=0, cooldown_s=60), Step(steps=((1, 1),), cooldown_s=60)]
)
def test_a_pause_does_not_add_steps_up_for_later(rule):
    world = World(policy=rule)
    world.send(8, service_s=1200)
    world.run_until(lambda: world.fleet.target == 2)
    world.state.set_pause(Pause(until_s=world.clock.now() + 1800, by="ann"))
    world.run(1790)
    book = world.state.book()
    assert book is not None
    assert (world.fleet.target, book.capacity) == (2, 3)
    world.run(60)
    assert world.fleet.target == 3


def test_why_nobody_goes_is_told_as_it_is(wishes):
    world = World(policy=wishes)
    wishes.wanted = 2
    world.run_until(lambda: len(world.fleet.alive) == 2)
    wishes.wanted = 1
    world.run_until(lambda: held(world) != "")
    assert serving(world) == []
    assert held(world) == "nobody reports who could be asked to go; new ones boot"
    wishes.wanted = 2
    world.run_until(lambda: len(serving(world)) == 2)
    world.send(2, service_s=500)
    world.run(60)
    wishes.wanted = 1
    world.run(20)
    assert held(world) == "all are busy; nobody is ended while it works"


def held(world: World) -> str:
    book = world.state.book()
    assert book is not None
    return book.hold


def test_a_group_whose_target_falls_with_the_kill_shrinks_by_as_many(wishes):
    world = World(policy=wishes, lowers_target=False)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    wishes.wanted = 2
    world.run_until(lambda: len(world.fleet.alive) == 2)
    world.run(600)
    assert (world.fleet.target, len(world.fleet.alive)) == (2, 2)
    wishes.wanted = 3
    world.run_until(lambda: len(serving(world)) == 3)
    assert world.violations == []


def test_a_pause_keeps_the_target_also_while_capacity_does_not_come(wishes):
    world = World(policy=wishes)
    world.fleet.capacity_left = 1
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 1)
    world.state.set_pause(Pause(until_s=world.clock.now() + 7200, by="ann"))
    world.run(3600)
    assert world.fleet.target == 4


def test_more_than_were_asked_for_are_too_many(wishes):
    world = World(policy=wishes)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    world.run(60)
    world.fleet.set_target(2)  # by somebody else, who leaves the excess to us
    wishes.wanted = 2
    world.run_until(lambda: len(world.fleet.alive) == 2)
    world.run(300)
    assert (world.fleet.target, len(world.fleet.alive)) == (2, 2)
    assert world.violations == []


def test_an_excess_that_is_wanted_after_all_is_kept(wishes):
    world = World(policy=wishes)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    world.run(60)
    before = set(world.fleet.alive)
    world.fleet.set_target(2)
    world.run_until(lambda: world.fleet.target == 4)
    world.run(300)
    assert set(world.fleet.alive) == before


def test_an_interrupted_worker_is_replaced_before_its_end(wishes):
    world = World(policy=wishes, faults=Faults(reclaims_per_hour=1.0))
    wishes.wanted = 3
    world.run(8 * 3600)
    assert world.reclaims > 8
    assert world.violations == []
    assert world.fleet.target == 3


@pytest.mark.parametrize("seed", range(2))
def test_a_day_of_kills_failing_calls_and_reclaims(seed):
    world = World(seed=seed, faults=Faults(killed=0.002, unavailable=0.02, reclaims_per_hour=0.3, silent_death=0.02))
    for _ in range(48):
        world.run(world.random.expovariate(1 / 1800))
        world.send(world.random.randint(1, 30), service_s=world.random.uniform(5, 60))
    world.run_until(lambda: all(task.ended_s for task in world.tasks), within_s=7200)
    world.run_until(lambda: world.fleet.alive == [], within_s=4 * 3600)
    assert world.violations == []
    assert world.kills > 10
    assert world.most_alive <= 4 + 2


def test_more_members_than_the_target_asks_for_are_drained_in_a_group_too(wishes):
    world = World(policy=wishes, lowers_target=False)
    wishes.wanted = 4
    world.run_until(lambda: len(serving(world)) == 4)
    world.run(30)
    world.fleet.target = 1  # somebody else lowers it; the members are protected
    wishes.wanted = 1
    world.run(3600)
    assert len(world.fleet.alive) == 1
    assert world.fleet.target == 1
    assert world.violations == []
