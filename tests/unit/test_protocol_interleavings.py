"""Every interleaving of a worker, two leaders and a message, with crashes and delayed writes between any two steps.

The states are explored whole, with the very transition functions that the daemon runs. Guards are then taken away one
at a time, and each time the search must find what that guard prevents: so it is the guards that keep the worker safe,
and not the smallness of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
from fakes.fleet_state import applied

from scheduler.autoscale import protocol
from scheduler.autoscale.protocol import FINAL, LEAVING, NEVER_BOOTED, Change, Report, State, Worker

MOST_BOOTS = 2
MESSAGES = 1


class Record(NamedTuple):
    """What of a worker's record bears on safety."""

    state: State | None
    boot_id: str | None
    drain_no: int
    beat: int
    recall: int
    dead: bool


class Write(NamedTuple):
    """A write under way: which, and the record that it was decided on."""

    kind: str
    seen: Record | None
    boot: int
    """Of the instance that sent it; -1 for a leader's."""


class World(NamedTuple):
    """One state of everything."""

    record: Record | None
    boot: int = 1
    """Boots of the instance so far; its present boot's number."""
    is_up: bool = True
    """Whether EC2 has the instance."""
    runs: bool = False
    """Whether the daemon's process lives."""
    is_open: bool = False
    polls: bool = False
    holds: bool = False
    answered: Record | None = None
    """The answer to the last heartbeat, not yet acted on."""
    obeyed: Record | None = None
    """The record by which the receiving was opened or closed last."""
    queue: int = MESSAGES
    leaders: tuple[Record | None, ...] = (None,)
    delayed: Write | None = None
    """One write that left its sender and has not arrived."""


@dataclass(frozen=True)
class Rules:
    """The code under test, and what a mutation changes in it."""

    leaders: int = 1
    drains: int = 2
    """How often the worker may be asked to go."""
    delays: bool = True
    """Whether a write may arrive at any later time, or have its answer lost."""
    mend: Callable[[str, Change], Change] = lambda _, change: change
    duty: Callable[..., protocol.Duty] = protocol.duty
    register: Callable[..., Change | None] = protocol.register
    idle: Callable[[World], bool] = lambda world: not world.polls and not world.holds
    starts_open: bool = False
    leader_kills: bool = True
    reboots: bool = False
    term_is_final: bool = False
    """Whether an instance that was told to end never comes back, so that it is told so after a reboot too."""
    writes_off: bool = True
    """Whether leaders write workers off, alive or not."""
    leaves: bool = True
    """Whether the worker may ask to go by itself."""


class Violation(Exception):
    """A state that must not be."""


def worker_of(record: Record) -> Worker:
    assert record.state is not None
    assert record.boot_id is not None
    return Worker(
        instance_id="i-1",
        boot_id=record.boot_id,
        state=record.state,
        drain_no=record.drain_no,
        beat=record.beat,
        recall=record.recall,
        dead=record.dead,
    )


def plain(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else {name: value for name, value in record._asdict().items() if value is not None}


def record_of(item: dict[str, Any]) -> Record:
    return Record(
        item.get("state"),
        item.get("boot_id"),
        item.get("drain_no", 0),
        item.get("beat", 0),
        item.get("recall", 0),
        item.get("dead", False),
    )


def boot_id(boot: int) -> str:
    return f"boot-{boot}"


LEADERS_WRITES: dict[str, Callable[[Worker], Change]] = {
    "drain": lambda worker: protocol.drain(worker, why="", now_s=0),
    "recall": protocol.recall,
    "terminate": lambda worker: protocol.terminate(worker, now_s=0),
    "bury": lambda worker: protocol.bury(worker, why="", now_s=0),
    "gone": lambda worker: protocol.gone(worker, now_s=0, keep_s=0),
}
SEEN_BY_LEADERS: dict[str, Callable[[Record], bool]] = {
    "drain": lambda seen: seen.state is State.ACTIVE,
    "recall": lambda seen: seen.state in LEAVING and seen.recall != seen.drain_no,
    "terminate": lambda seen: seen.state is State.DRAINED,
    "bury": lambda seen: seen.state not in FINAL,
    "gone": lambda seen: seen.state is not State.GONE,
}
OWN_WRITES: dict[str, Callable[[Worker], Change]] = {
    "beat": lambda worker: protocol.beat(worker, Report(), now_s=0),
    "consent": lambda worker: protocol.consent(worker, now_s=0),
    "resume": lambda worker: protocol.resume(worker, now_s=0),
    "leave": lambda worker: protocol.drain(worker, why="", firm=True, now_s=0),
}


class Search:
    """Explores all states from the start; raises Violation at the first that must not be."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.seen: set[World] = set()
        self.reached: set[str] = set()
        self._applied = lru_cache(maxsize=None)(self._apply)

    def run(self) -> Search:
        todo = deque([World(None, leaders=(None,) * self.rules.leaders)])
        met: set[World] = set()
        while todo:
            world = todo.popleft()
            for following in self._steps(world):
                if following in met:
                    continue
                met.add(following)
                if (known := normal(following)) not in self.seen:
                    self.seen.add(known)
                    todo.append(known)
        return self

    # writes

    def _change(self, write: Write) -> Change | None:
        if write.kind == "register":
            worker = None if write.seen is None else worker_of(write.seen)
            change = self.rules.register(
                worker, instance_id="i-1", boot_id=boot_id(write.boot), now_s=0, term_is_final=self.rules.term_is_final
            )
        elif write.kind == "disown":
            change = protocol.disown("i-1", why="", now_s=0)
        else:
            assert write.seen is not None
            change = (LEADERS_WRITES | OWN_WRITES)[write.kind](worker_of(write.seen))
        return None if change is None else self.rules.mend(write.kind, change)

    def _apply(self, write: Write, record: Record | None) -> Record | None:
        """Return the record after the write, None where it was refused. Raises Violation."""
        change = self._change(write)
        after = None if change is None else applied(change, plain(record))
        if after is None:
            return None
        self.reached.add(write.kind)
        result = record_of(after)
        self._judge(write, record, result)
        return result

    @staticmethod
    def _judge(write: Write, before: Record | None, after: Record) -> None:
        """No write takes effect on anything but what it was decided on; TERM is final; a record is whole."""
        if after.state is None or after.boot_id is None:
            raise Violation(f"{write.kind} made half a record")
        if before is None:
            if write.kind not in {"register", "disown"}:
                raise Violation(f"{write.kind} made a record")
            return
        if before.state is State.TERM and after.state not in FINAL and before.boot_id in {after.boot_id, NEVER_BOOTED}:
            raise Violation(f"{write.kind} undid TERM")
        if write.kind == "beat":
            if before.state in FINAL:
                raise Violation("a heartbeat was taken for one that is to end")
            if before.boot_id != boot_id(write.boot):
                raise Violation("a heartbeat was taken for another boot's")
            return
        if write.seen is None or write.seen[:3] != before[:3]:
            raise Violation(f"{write.kind} was decided on {write.seen} and took effect on {before}")
        if write.kind == "bury" and write.seen.beat != before.beat:
            raise Violation("one that lives was written off")
        if write.kind == "resume" and before.recall != before.drain_no:
            raise Violation("it resumed unasked")

    def _send(self, world: World, write: Write) -> Iterator[tuple[World, Record | None]]:
        """The write arrives now, and its answer too; or it is delayed, or arrives and its answer is lost."""
        after = self._applied(write, world.record)
        yield (world if after is None else world._replace(record=after)), after
        if self.rules.delays and world.delayed is None:
            yield world._replace(delayed=write), None

    # steps

    def _steps(self, world: World) -> Iterator[World]:
        if world.is_up:
            yield from self._of_the_receiver(world)
            yield from self._of_the_control_thread(world)
            yield from self._of_the_host(world)
        for index in range(self.rules.leaders):
            yield from self._of_a_leader(world, index)
        if world.delayed is not None:
            after = self._applied(world.delayed, world.record)
            yield world._replace(delayed=None, record=world.record if after is None else after)
            yield world._replace(delayed=None)
        if world.record is not None and world.record.state is State.GONE:
            yield world._replace(record=None)  # the table drops it in the end
        if self.rules.reboots and not self.rules.term_is_final and not world.is_up and world.boot < MOST_BOOTS:
            yield world._replace(is_up=True, boot=world.boot + 1)

    @staticmethod
    def _of_the_receiver(world: World) -> Iterator[World]:
        if not world.runs:
            return
        if world.is_open and not world.polls and not world.holds:
            yield world._replace(polls=True)
        if world.polls:
            yield world._replace(polls=False)
            if world.queue:
                yield world._replace(polls=False, holds=True, queue=world.queue - 1)
        if world.holds:
            yield world._replace(holds=False)  # rendered, stored, deleted
            yield world._replace(holds=False, queue=world.queue + 1)  # or given back

    def _of_the_control_thread(self, world: World) -> Iterator[World]:
        """One thread: read, obey, and write, each a step of its own."""
        if not world.runs:
            return
        own = boot_id(world.boot)
        if world.answered is not None:
            duty = self._duty(world.answered, own, is_idle=False)
            yield world._replace(answered=None, obeyed=world.answered, is_open=duty.may_receive)
        elif world.obeyed is not None:
            duty = self._duty(world.obeyed, own, is_idle=self.rules.idle(world))
            done = world._replace(obeyed=None)
            if duty.ends:
                self.reached.add("ends itself")
                yield self._ended(done)
            elif duty.change is not None:
                kind = "resume" if duty.change.sets["state"] is State.ACTIVE else "consent"
                yield from (after for after, _ in self._send(done, Write(kind, world.obeyed, world.boot)))
            if self._may_leave(world.obeyed, own):
                yield from (after for after, _ in self._send(done, Write("leave", world.obeyed, world.boot)))
            yield done
        elif world.record is None or world.record.boot_id != own:
            # It reads its record, and enters it or obeys it; the read and the write may lie apart, by the delay.
            if self._change(Write("register", world.record, world.boot)) is None:
                yield world._replace(answered=world.record)
            else:
                yield from (after for after, _ in self._send(world, Write("register", world.record, world.boot)))
        else:
            for after, answer in self._send(world, Write("beat", world.record, world.boot)):
                # Refused, it is answered with the record that refused.
                yield after._replace(answered=answer or world.record)
                yield after  # the answer is lost

    def _duty(self, seen: Record, own: str, *, is_idle: bool) -> protocol.Duty:
        return self.rules.duty(
            worker_of(seen), boot_id=own, is_idle=is_idle, now_s=0, term_is_final=self.rules.term_is_final
        )

    def _may_leave(self, seen: Record, own: str) -> bool:
        """A worker may ask to go by itself whenever it works, or was asked to go and is called back."""
        worker = worker_of(seen)
        is_wanted = worker.state is State.ACTIVE or worker.is_recalled
        return self.rules.leaves and is_wanted and worker.boot_id == own and seen.drain_no < self.rules.drains

    def _of_the_host(self, world: World) -> Iterator[World]:
        if not world.runs:
            yield world._replace(runs=True, is_open=self.rules.starts_open)
        else:
            back = world.queue + world.holds
            stopped = world._replace(runs=False, is_open=False, polls=False, holds=False, queue=back)
            stopped = stopped._replace(answered=None, obeyed=None)
            yield stopped  # kill -9
            if self.rules.reboots and world.boot < MOST_BOOTS:
                yield stopped._replace(boot=world.boot + 1)

    def _of_a_leader(self, world: World, index: int) -> Iterator[World]:
        seen = world.leaders[index]
        if seen != world.record:
            leaders = list(world.leaders)
            leaders[index] = world.record
            yield world._replace(leaders=tuple(leaders))
        if seen is None:
            if self.rules.writes_off and world.record is None and world.is_up:
                yield from (after for after, _ in self._send(world, Write("disown", None, -1)))
            return
        for kind, is_seen in SEEN_BY_LEADERS.items():
            if kind == "drain" and seen.drain_no >= self.rules.drains:
                continue
            if kind == "bury" and not self.rules.writes_off:
                continue
            if is_seen(seen) and (kind != "gone" or not world.is_up):
                yield from (after for after, _ in self._send(world, Write(kind, seen, -1)))
        if seen.state is State.TERM and world.is_up and self.rules.leader_kills:
            self.reached.add("is killed")
            yield self._ended(world)

    @staticmethod
    def _ended(world: World) -> World:
        """The instance ends: with anything in hand that is only allowed to one that was written off."""
        is_dead = world.record is not None and world.record.dead
        if (world.polls or world.holds) and not is_dead:
            raise Violation("a busy worker was ended")
        back = world.queue + world.holds
        return world._replace(
            is_up=False, runs=False, is_open=False, polls=False, holds=False, queue=back, answered=None, obeyed=None
        )


def normal(world: World) -> World:
    """The same state with heartbeats renumbered, for only their equality matters."""
    beats = {record.beat for record in records(world)}
    if max(beats, default=0) < len(beats):
        return world
    rank = {beat: number for number, beat in enumerate(sorted(beats))}

    def renumbered(record: Record | None) -> Record | None:
        return None if record is None else record._replace(beat=rank[record.beat])

    delayed = world.delayed
    return world._replace(
        record=renumbered(world.record),
        answered=renumbered(world.answered),
        obeyed=renumbered(world.obeyed),
        leaders=tuple(renumbered(seen) for seen in world.leaders),
        delayed=None if delayed is None else delayed._replace(seen=renumbered(delayed.seen)),
    )


def records(world: World) -> list[Record]:
    """Every copy of the record that somebody has."""
    delayed = world.delayed.seen if world.delayed else None
    copies = (world.record, world.answered, world.obeyed, *world.leaders, delayed)
    return [record for record in copies if record is not None]


SPOT = Rules()
SPLIT = Rules(leaders=2, delays=False)
REBOOTED = Rules(drains=1, reboots=True, term_is_final=True)
"""An instance of a fleet that boots again by itself, while a leader may be about to end it."""
SINGLE = Rules(drains=1, leader_kills=False, reboots=True)
"""A single instance is stopped by itself alone, and comes back under the same id."""


@pytest.mark.parametrize(
    "rules",
    [SPOT, SPLIT, SINGLE, REBOOTED],
    ids=["terminated", "two leaders", "stopped and started again", "booted again by itself"],
)
def test_no_interleaving_ends_a_busy_worker(rules):
    search = Search(rules).run()
    assert search.reached >= {"register", "beat", "disown", *LEADERS_WRITES, *OWN_WRITES, "ends itself"}
    assert len(search.seen) > 10_000


# each guard taken away


def without(kind: str, guard: str) -> Rules:
    """The rules with one condition of one write left out."""

    def mend(written: str, change: Change) -> Change:
        if written != kind:
            return change
        if guard == "there is none":
            return replace(change, expects_none=False)
        return replace(
            change,
            requires={name: value for name, value in change.requires.items() if name != guard},
            forbids={name: values for name, values in change.forbids.items() if name != guard},
        )

    base = SINGLE if guard == "boot_id" or kind == "register" else SPOT
    return replace(base, mend=mend, writes_off=kind in {"bury", "disown", "gone", "register"})


GUARDS = [
    *((kind, guard) for kind in (*LEADERS_WRITES, "consent", "resume") for guard in ("state", "boot_id", "drain_no")),
    ("register", "state"),
    ("register", "boot_id"),
    ("register", "there is none"),
    ("disown", "there is none"),
    ("beat", "boot_id"),
    ("beat", "state"),
    ("bury", "beat"),
]


@pytest.mark.parametrize(("kind", "guard"), GUARDS, ids=lambda word: word)
def test_a_write_without_one_of_its_conditions_does_harm(kind, guard):
    with pytest.raises(Violation):
        Search(without(kind, guard)).run()


def duty_that(changes: Callable[[Worker, protocol.Duty], protocol.Duty]) -> Callable[..., protocol.Duty]:
    def duty(worker: Worker, **facts: Any) -> protocol.Duty:
        return changes(worker, protocol.duty(worker, **facts))

    return duty


def register_that_forgets(seen: Worker | None, **facts: Any) -> Change | None:
    """A restarted daemon begins anew, whatever was asked of the one before."""
    change = protocol.register(None, **facts)
    assert change is not None
    requires = {} if seen is None else {"state": seen.state, "boot_id": seen.boot_id, "drain_no": seen.drain_no}
    return replace(change, expects_none=seen is None, requires=requires)


MISTAKES = {
    "an outstanding poll counts for nothing": Rules(idle=lambda world: not world.holds),
    "what is held counts for nothing": Rules(idle=lambda world: not world.polls),
    "a drain does not close the receiving": Rules(
        duty=duty_that(lambda worker, duty: replace(duty, may_receive=worker.state not in FINAL))
    ),
    "it receives as soon as it reads that it is recalled": Rules(
        duty=duty_that(lambda worker, duty: replace(duty, may_receive=duty.may_receive or worker.is_recalled))
    ),
    "it receives before it has read its record": Rules(starts_open=True),
    "a restart forgets the drain": Rules(register=register_that_forgets),
    "a leader stops an instance that may have booted again": Rules(reboots=True),
    "an instance that booted again forgets that it was to end": replace(REBOOTED, term_is_final=False),
    "it goes back to work unasked": Rules(
        duty=duty_that(
            lambda worker, duty: (
                replace(duty, change=protocol.resume(worker, now_s=0)) if worker.state is State.DRAINED else duty
            )
        )
    ),
    "a drained worker ends itself": Rules(
        duty=duty_that(lambda worker, duty: replace(duty, ends=duty.ends or worker.state is State.DRAIN))
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_worker_does_harm(name):
    with pytest.raises(Violation):
        Search(MISTAKES[name]).run()
