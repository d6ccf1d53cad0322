"""A whole fleet in virtual time: the real leader, member, protocol and plan over a model of EC2, SQS and the workers.

What is modelled is what can go wrong: boots take time, targets are shown late while the fleet is modifying, ended
instances are replaced, notices come or do not, processes are killed between any two calls, calls fail, long polls
bring messages after their worker was asked to go. Every end of an instance is judged: with work in its hands only one
that EC2 took away may end: who was written off was dead, or the writing off was wrong.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes import FakeClock
from fakes.fleet_state import FakeFleetState

from scheduler.autoscale.book import TICK_S
from scheduler.autoscale.fleets.port import Condition, FleetView, Life
from scheduler.autoscale.fleets.port import Member as FleetMember
from scheduler.autoscale.leader import Leader, Terms
from scheduler.autoscale.member import Member
from scheduler.autoscale.ports import QueueCounts
from scheduler.autoscale.protocol import Report
from scheduler.autoscale.snapshot import Decision, Policy, PolicyState, Snapshot
from scheduler.autoscale.survey import Bounds
from scheduler.domain.errors import Unavailable
from scheduler.intake import Intake

POLL_S = 10.0
DEADLINE_S = 600.0
VISIBILITY_S = 60.0
LISTED_S = 300.0
"""How long EC2 still lists an instance that has ended."""


class Killed(Exception):
    """The process of a host dies here."""


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How likely things go wrong, each time they could."""

    killed: float = 0.0
    """A process dies before or after one of its calls."""
    unavailable: float = 0.0
    """A call is not answered, whether or not it was carried out."""
    reclaims_per_hour: float = 0.0
    silent_death: float = 0.0
    """Share of launches that never report."""


class Wishes:
    """A policy that wants what a test says."""

    name = "wishes"

    def __init__(self, wanted: int = 0) -> None:
        self.wanted = wanted

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        return Decision(capacity=snapshot.within_bounds(self.wanted), reasons=("a test says so",))


class Demand:
    """A plain policy: what is under way, and what waits against a minute; lower only after five quiet minutes."""

    name = "demand"

    def decide(self, snapshot: Snapshot, state: PolicyState) -> Decision:
        need = snapshot.busy + -(-int(snapshot.waiting * snapshot.service_s) // 60)
        highest = [(at_s, was) for at_s, was in state.get("needs", []) if snapshot.at_s - at_s < 300]
        highest.append((snapshot.at_s, need))
        wanted = max(was for _, was in highest)
        return Decision(
            capacity=snapshot.within_bounds(wanted), reasons=(f"{need} are needed",), state={"needs": highest}
        )


@dataclass(kw_only=True)
class Task:
    number: int
    sent_s: float
    service_s: float
    runs: int = 0
    ended_s: float | None = None


class ModelFleet:
    """The port, on virtual time: a Spot Fleet that launches late, shows its target late, and replaces who ends."""

    def __init__(self, world: World, *, lowers_target: bool = True, launch_s: float = 30.0) -> None:
        self.name = "model"
        self.lowers_target = lowers_target
        self.replaces = True
        self.target = 0
        self.capacity_left = 10_000
        self._world = world
        self._launch_s = launch_s
        self._shown = 0
        self._modifying_until_s = 0.0
        self._launching = 0
        self._numbers = itertools.count(1)
        self.members: dict[str, FleetMember] = {}
        self.ended_s: dict[str, float] = {}
        self.modified: list[tuple[float, int]] = []

    @property
    def alive(self) -> list[str]:
        return [one for one in self.members if one not in self.ended_s]

    def describe(self) -> FleetView:
        now_s = self._world.clock.now()
        for one, ended_s in list(self.ended_s.items()):
            if now_s - ended_s > LISTED_S:
                del self.members[one], self.ended_s[one]
        is_modifying = now_s < self._modifying_until_s
        return FleetView(
            condition=Condition.MODIFYING if is_modifying else Condition.ACTIVE,
            target=self._shown if is_modifying else self.target,
            members=tuple(self.members.values()),
        )

    def set_target(self, capacity: int) -> None:
        now_s = self._world.clock.now()
        if now_s < self._modifying_until_s:
            raise AssertionError("the target was changed while the fleet was modifying")
        self._shown, self.target = self.target, capacity
        self._modifying_until_s = now_s + self._world.random.uniform(2, 20)
        self.modified.append((now_s, capacity))
        self._refill()

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:
        for one in instance_ids:
            if one in self.alive:
                self._world.judge_end(one)
                self._end(one, replace=replace)

    def end_self(self, instance_id: str, *, replace: bool) -> None:
        if instance_id in self.alive:
            self._world.judge_end(instance_id)
            self._end(instance_id, replace=replace)

    def faults(self) -> list[str]:
        return []

    def reclaim(self, instance_id: str) -> None:
        """EC2 takes an instance, whatever it does."""
        if instance_id in self.alive:
            self._end(instance_id, replace=True)

    def _end(self, instance_id: str, *, replace: bool) -> None:
        member = self.members[instance_id]
        self.members[instance_id] = FleetMember(instance_id=instance_id, life=Life.ENDING, launched_s=member.launched_s)
        self.ended_s[instance_id] = self._world.clock.now()
        if not self.lowers_target and not replace:
            self.target -= 1
        self._world.host_ended(instance_id)
        self._refill()

    def _refill(self) -> None:
        while len(self.alive) + self._launching < self.target and self.capacity_left > 0:
            self._launching += 1
            self.capacity_left -= 1
            self._world.after(self._launch_s, self._launch)

    def _launch(self) -> None:
        self._launching -= 1
        if len(self.alive) >= self.target:
            self.capacity_left += 1
            return
        one = f"i-{next(self._numbers):05}"
        self.members[one] = FleetMember(instance_id=one, life=Life.RUNNING, launched_s=self._world.clock.now())
        self._world.host_launched(one)


class Guarded:
    """Stands before the state or the fleet as one host's process sees them, and lets calls fail and processes die."""

    def __init__(self, target: Any, world: World, host: Host | None) -> None:
        self._target = target
        self._world = world
        self._host = host

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **more: Any) -> Any:
            self._world.maybe_killed(self._host)
            before = self._world.maybe_unavailable()
            result = attribute(*args, **more)
            self._world.maybe_killed(self._host)
            if before or self._world.maybe_unavailable():
                raise Unavailable("the answer was lost")
            return result

        return call


@dataclass(kw_only=True)
class Host:
    """One instance and the daemon on it."""

    instance_id: str
    world: World
    is_running: bool = False
    starts: int = 0
    ready_s: float | None = None
    intake: Intake = field(default_factory=Intake)
    member: Member | None = None
    leader: Leader | None = None
    polls: bool = False
    task: Task | None = None
    received: int = 0
    finished: int = 0
    busy_s: float = 0.0
    idle_since_s: float = 0.0

    def report(self) -> Report:
        return Report(
            running=int(self.task is not None),
            received=self.received,
            finished=self.finished,
            busy_s=self.busy_s,
            idle_s=0.0 if self.task else self.world.clock.now() - self.idle_since_s,
            ready_s=self.ready_s,
        )


class World:
    """Runs events in the order of their times. `violations` holds what must not have happened."""

    def __init__(
        self,
        *,
        seed: int = 1,
        policy: Policy | None = None,
        max_capacity: int = 4,
        min_capacity: int = 0,
        faults: Faults | None = None,
        boot_s: float = 120.0,
        has_outsider: bool = True,
        lowers_target: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.clock = FakeClock()
        self.state = FakeFleetState(self.clock.now)
        self.fleet = ModelFleet(self, lowers_target=lowers_target)
        self.policy: Policy = policy or Demand()
        self.bounds = Bounds(min_capacity=min_capacity, max_capacity=max_capacity)
        self.faults = faults or Faults()
        self.hosts: dict[str, Host] = {}
        self.queue: list[Task] = []
        self.tasks: list[Task] = []
        self.violations: list[str] = []
        self.kills = self.reclaims = self.launches = 0
        self.most_alive = 0
        self.outsider_is_away = False
        self._boot_s = boot_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._in_flight: dict[int, Task] = {}
        self._seen_counts = QueueCounts(visible=0, delayed=0, in_flight=0)
        self._counted_s = float("-inf")
        if has_outsider:
            self.outsider = self.new_leader("cron", None, looks_once=True)
            self.after(1.0, self._outsider_ticks)

    # time

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.now() + seconds, next(self._order), do))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until_s = self.clock.now() + seconds
        while self._events and self._events[0][0] <= until_s:
            at_s, _, do = heapq.heappop(self._events)
            self.clock.advance(max(0.0, at_s - self.clock.now()))
            do()
        self.clock.advance(max(0.0, until_s - self.clock.now()))

    def run_until(self, true: Callable[[], bool], *, within_s: float = 3600.0) -> None:
        deadline_s = self.clock.now() + within_s
        while not true():
            assert self.clock.now() < deadline_s, "it did not come about in time"
            self.run(1.0)

    # work

    def send(self, count: int = 1, *, service_s: float = 20.0) -> None:
        for _ in range(count):
            task = Task(number=len(self.tasks), sent_s=self.clock.now(), service_s=service_s)
            self.tasks.append(task)
            self.queue.append(task)
        self._hand_out()

    def counts(self) -> QueueCounts:
        """As SQS tells them: up to a minute old."""
        now_s = self.clock.now()
        if now_s - self._counted_s > 30:
            self._counted_s = now_s
            self._seen_counts = QueueCounts(visible=len(self.queue), delayed=0, in_flight=len(self._in_flight))
        return self._seen_counts

    def _hand_out(self) -> None:
        while self.queue and (polling := [host for host in self.hosts.values() if host.polls]):
            host, task = self.random.choice(polling), self.queue.pop(0)
            self._in_flight[task.number] = task
            host.polls = False
            host.task = task
            host.received += task.runs == 0
            task.runs += 1
            host.intake.end()
            starts = host.starts
            self.after(task.service_s, lambda host=host, task=task, starts=starts: self._rendered(host, task, starts))

    def _rendered(self, host: Host, task: Task, starts: int) -> None:
        if host.task is not task or host.starts != starts:
            return
        host.task = None
        host.finished += 1
        host.busy_s += task.service_s
        host.idle_since_s = self.clock.now()
        self._in_flight.pop(task.number, None)
        if task.ended_s is not None:
            self.violations.append(f"task {task.number} was finished twice")
        task.ended_s = self.clock.now()
        self._poll(host)

    def _poll(self, host: Host) -> None:
        """Begin a long poll if the door is open; while it is shut, look again in a moment."""
        if not host.is_running or host.polls or host.task is not None or host.ready_s is None:
            return
        starts = host.starts
        if host.intake.begin():
            host.polls = True
            self.after(POLL_S, lambda: self._poll_ended(host, starts))
            self._hand_out()
        else:
            self.after(1.0, lambda: self._poll(host) if host.starts == starts else None)

    def _poll_ended(self, host: Host, starts: int) -> None:
        if host.starts == starts and host.polls:
            host.polls = False
            host.intake.end()
            self._poll(host)

    # hosts

    def host_launched(self, instance_id: str) -> None:
        host = self.hosts[instance_id] = Host(instance_id=instance_id, world=self)
        self.launches += 1
        self.most_alive = max(self.most_alive, len(self.hosts))
        if self.random.random() >= self.faults.silent_death:
            self.after(self._boot_s * self.random.lognormvariate(0, 0.2) / 2, lambda: self._start(host))
        if self.faults.reclaims_per_hour:
            lives_s = self.random.expovariate(self.faults.reclaims_per_hour) * 3600
            self.after(lives_s, lambda: self._reclaim(host))

    def host_ended(self, instance_id: str) -> None:
        host = self.hosts.pop(instance_id)
        self._stop(host)

    def judge_end(self, instance_id: str) -> None:
        host = self.hosts[instance_id]
        if host.polls or host.task is not None:
            self.violations.append(f"{instance_id} was ended while it worked")

    def _start(self, host: Host) -> None:
        """Start the daemon; its engine is ready a little later at the first start."""
        if host.instance_id not in self.hosts or host.is_running:
            return
        host.is_running = True
        host.starts += 1
        host.received = host.finished = 0
        host.busy_s = 0.0
        host.idle_since_s = self.clock.now()
        host.intake = Intake()
        host.member = Member(
            instance_id=host.instance_id,
            boot_id="boot-1",
            state=Guarded(self.state, self, host),
            fleet=Guarded(self.fleet, self, host),
            intake=host.intake,
            report=host.report,
            is_empty=lambda: host.task is None,
            clock=self.clock,
        )
        host.leader = self.new_leader(host.instance_id, host)
        starts = host.starts
        self.after(0.0, lambda: self._cycle(host, starts))
        self.after(self.random.uniform(0, TICK_S), lambda: self._tick(host, starts))
        self.after(self._boot_s / 2 if starts == 1 else 1.0, lambda: self._ready(host, starts))

    def _ready(self, host: Host, starts: int) -> None:
        if host.starts == starts and host.is_running:
            host.ready_s = self.clock.now()
            self._poll(host)

    def _stop(self, host: Host) -> None:
        """The process is gone; what it held comes back when its visibility has run out."""
        host.is_running = host.polls = False
        host.ready_s = None
        host.starts += 1
        if host.task is not None:
            task, host.task = host.task, None
            self.after(VISIBILITY_S, lambda: self._back(task))

    def _back(self, task: Task) -> None:
        if self._in_flight.pop(task.number, None) is not None:
            self.queue.append(task)
            self._hand_out()

    def kill(self, host: Host) -> None:
        """SIGKILL to the daemon; its supervisor starts it again."""
        self.kills += 1
        self._stop(host)
        self.after(self.random.uniform(2, 40), lambda: self._start(host))

    def _reclaim(self, host: Host) -> None:
        """A notice, two minutes, and the end; what has not finished by then goes back to the queue."""
        if host.instance_id not in self.hosts:
            return
        self.reclaims += 1
        if host.member is not None and host.is_running:
            host.member.leave("a notice of interruption", replace=True)
        self.after(120.0, lambda: self.fleet.reclaim(host.instance_id))

    def maybe_killed(self, host: Host | None) -> None:
        if host is not None and self.random.random() < self.faults.killed:
            raise Killed

    def maybe_unavailable(self) -> bool:
        return self.random.random() < self.faults.unavailable

    # loops

    def new_leader(self, name: str, host: Host | None, *, looks_once: bool = False) -> Leader:
        def terms() -> Terms:
            return Terms(policy=self.policy, bounds=self.bounds)

        return Leader(
            name=name,
            state=Guarded(self.state, self, host),
            fleet=Guarded(self.fleet, self, host),
            backlog=self,
            terms=terms,
            clock=self.clock,
            deadline_s=DEADLINE_S,
            looks_once=looks_once,
        )

    def _guarded(self, host: Host, do: Callable[[], None]) -> None:
        try:
            do()
        except Killed:
            self.kill(host)
        except Unavailable:
            pass

    def _cycle(self, host: Host, starts: int) -> None:
        if host.starts != starts or not host.is_running or host.member is None:
            return
        member, wait_s = host.member, [2.0]

        def cycle() -> None:
            wait_s[0] = member.cycle()

        self._guarded(host, cycle)
        self.after(wait_s[0], lambda: self._cycle(host, starts))

    def _tick(self, host: Host, starts: int) -> None:
        if host.starts != starts or not host.is_running or host.leader is None:
            return
        leader = host.leader

        pause_s = [TICK_S]

        def tick() -> None:
            pause_s[0] = leader.tick().next_s

        self._guarded(host, tick)
        self.after(pause_s[0] * self.random.uniform(0.8, 1.2), lambda: self._tick(host, starts))

    def _outsider_ticks(self) -> None:
        with contextlib.suppress(Unavailable):
            if not self.outsider_is_away:
                self.outsider.tick()
        self.after(60.0, self._outsider_ticks)
