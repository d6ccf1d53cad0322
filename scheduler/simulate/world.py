"""A fleet on a virtual clock: one queue, workers that boot, work, idle and go, and a policy that is asked at each tick.

`simulate(arrivals, policy, terms)` runs the demand (sorted by time) through the fleet that `terms` describes and
returns an `Outcome`; with `keep_samples` it holds the fleet at each tick. The policy is any `Policy`; what it may do is
in the terms: by consent only idle workers go, blindly the fleet ends whom it likes. The same arguments give the same
outcome.

Only what costs or delays is modelled: the protocol of the real fleet appears as what it takes (`Terms.leave_s`, one
batch of idle workers at a time, drains taken back). Events are worked off in the order of their times; between them
nothing happens, so that a million tasks take seconds.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from enum import IntEnum

from scheduler.autoscale.approach import BATCH_SHARE
from scheduler.autoscale.snapshot import Policy, PolicyState, Snapshot
from scheduler.autoscale.survey import BOOT_WEIGHT, SERVICE_WEIGHT
from scheduler.simulate.model import Arrival, Manner, Outcome, Sample, Terms
from scheduler.simulate.queue_history import QueueHistory
from scheduler.simulate.workers import State, Worker, Workers

FIRST_SERVICE_S = 20.0
"""What a task is taken to need before any has been measured, as the real leader takes it."""
HOUR_S = 3600.0
LEAST_SERVICE_S = 1.0
AFTERMATH_S = 24 * HOUR_S
"""So long after the last arrival an overloaded fleet is given up."""


class _Kind(IntEnum):
    """Events; at the same moment they happen in this order."""

    DONE = 0
    READY = 1
    LAUNCH = 2
    LEFT = 3
    NOTICE = 4
    RECLAIM = 5
    BACK = 6
    IDLE_EXIT = 7
    TICK = 8


def simulate(arrivals: Sequence[Arrival], policy: Policy, terms: Terms, *, keep_samples: bool = False) -> Outcome:
    """Run `arrivals` (sorted by time) through the fleet until the last is done; return what came of it."""
    return _World(arrivals, policy, terms, keep_samples=keep_samples).run()


class _World:
    def __init__(self, arrivals: Sequence[Arrival], policy: Policy, terms: Terms, *, keep_samples: bool) -> None:
        self.arrivals = arrivals
        self.policy = policy
        self.terms = terms
        self.random = random.Random(terms.seed)
        self.now_s = 0.0
        self.events: list[tuple[float, int, int, Worker | None, float]] = []
        self.order = 0
        self.workers = Workers(terms)
        self.queue: deque[int] = deque()
        self.history = QueueHistory()
        self.killed_away = 0
        """Messages of killed workers that are not visible yet."""
        self.received = self.finished = 0
        self.service_s, self.boot_s = FIRST_SERVICE_S, terms.launch_s + terms.boot_s
        self.state: PolicyState = {}
        self.waits_s = [-1.0] * len(arrivals)
        """Of each task's last run; negative while it has not had any."""
        self.busy_s = 0.0
        self.killed = self.interrupted = self.actions = 0
        self.samples: list[Sample] | None = [] if keep_samples else None
        handlers: dict[_Kind, Callable[[Worker, float], None]] = {
            _Kind.DONE: self._done,
            _Kind.READY: self._ready,
            _Kind.LEFT: self._left,
            _Kind.NOTICE: self._notice,
            _Kind.RECLAIM: self._reclaim,
            _Kind.IDLE_EXIT: self._idle_exit,
        }
        self.handlers = [handlers.get(kind) for kind in _Kind]

    def run(self) -> Outcome:
        arrivals, events, count = self.arrivals, self.events, len(self.arrivals)
        give_up_s = (arrivals[-1].at_s if arrivals else 0.0) + AFTERMATH_S
        self._refill()
        self._at(0.0, _Kind.TICK)
        following = 0
        next_s = arrivals[0].at_s if arrivals else math.inf
        while self.finished < count and self.now_s < give_up_s:
            if next_s <= events[0][0]:
                self.now_s = next_s
                self.queue.append(following)
                following += 1
                next_s = arrivals[following].at_s if following < count else math.inf
                self._hand_out()
            else:
                self._happen(*heapq.heappop(events))
        return self._outcome()

    def _at(self, seconds: float, kind: _Kind, worker: Worker | None = None, fact: float = 0.0) -> None:
        self.order += 1
        heapq.heappush(self.events, (self.now_s + seconds, kind, self.order, worker, fact))

    def _happen(self, at_s: float, kind: int, _order: int, worker: Worker | None, fact: float) -> None:
        self.now_s = at_s
        handler = self.handlers[kind]
        if handler is not None and worker is not None:
            if worker.state is not State.GONE:
                handler(worker, fact)
        elif kind == _Kind.TICK:
            self._tick()
        elif kind == _Kind.LAUNCH:
            self._launch(int(fact))
        else:
            self.killed_away -= 1
            self.queue.append(int(fact))
            self._hand_out()

    # work

    def _hand_out(self) -> None:
        """Give what waits to idle workers."""
        while self.queue and self.workers.idle:
            self._begin(self.workers.one_idle(self.random), self.queue.popleft())
        self._count()

    def _begin(self, worker: Worker, task: int) -> None:
        arrival, switch_s = self.arrivals[task], self.terms.switch_s
        took_s = arrival.service_s
        if arrival.model:
            took_s = max(LEAST_SERVICE_S, took_s - switch_s) + (switch_s if worker.model != arrival.model else 0.0)
            worker.model = arrival.model
        self.workers.begin(worker, task, self.now_s)
        self.received += self.waits_s[task] < 0
        self.waits_s[task] = self.now_s - arrival.at_s
        self._at(took_s, _Kind.DONE, worker, task)

    def _done(self, worker: Worker, _task: float) -> None:
        took_s = self._put_down(worker)
        self.finished += 1
        self.service_s += SERVICE_WEIGHT * (took_s - self.service_s)
        self._free(worker)
        self._count()

    def _put_down(self, worker: Worker) -> float:
        took_s = self.workers.put_down(worker, self.now_s)
        self.busy_s += took_s
        return took_s

    def _free(self, worker: Worker) -> None:
        """Let an idle worker take what waits, or wait, or go if EC2 takes it."""
        if worker.is_noticed:
            self.workers.end(worker, self.now_s)
            self._refill()
        elif self.queue:
            self._begin(worker, self.queue.popleft())
        elif self.terms.idle_exit_s is not None:
            self._at(self.terms.idle_exit_s, _Kind.IDLE_EXIT, worker, self.now_s)

    def _count(self) -> None:
        self.history.add(self.now_s, len(self.queue), self.workers.busy + self.killed_away)

    # workers

    def _refill(self) -> None:
        """Ask for what the target lacks."""
        for _ in range(self.workers.missing):
            self._at(self.terms.launch_s, _Kind.LAUNCH, None, self.workers.ask())

    def _launch(self, request: int) -> None:
        if request not in self.workers.requests:
            return  # it was called off
        if not self.workers.has_room(self.now_s):
            self._at(self.terms.launch_s, _Kind.LAUNCH, None, request)
            return
        worker, terms = self.workers.launch(request, self.now_s), self.terms
        sigma = terms.boot_sigma
        self._at(terms.boot_s * math.exp(self.random.gauss(0.0, sigma) - sigma * sigma / 2), _Kind.READY, worker)
        if terms.reclaims_per_hour:
            self._at(self.random.expovariate(terms.reclaims_per_hour) * HOUR_S, _Kind.NOTICE, worker)

    def _ready(self, worker: Worker, _fact: float) -> None:
        self.boot_s += BOOT_WEIGHT * (self.terms.launch_s + self.now_s - worker.born_s - self.boot_s)
        self.workers.be_ready(worker, self.now_s)
        self._free(worker)
        self._count()

    def _notice(self, worker: Worker, _fact: float) -> None:
        """EC2 takes it: it takes nothing new, and finishes what it can."""
        self.workers.notice(worker)
        if worker.state is State.IDLE:
            self._free(worker)
        else:
            self._at(self.terms.notice_s, _Kind.RECLAIM, worker)

    def _reclaim(self, worker: Worker, _fact: float) -> None:
        if worker.state is State.BUSY:
            self.queue.appendleft(worker.task)
            self._put_down(worker)
            self.interrupted += 1
        self.workers.end(worker, self.now_s)
        self._refill()
        self._hand_out()

    def _idle_exit(self, worker: Worker, since_s: float) -> None:
        has_idled = worker.state is State.IDLE and worker.since_s == since_s
        if has_idled and self.workers.target > self.terms.min_capacity:
            self.workers.target -= 1
            self.actions += 1
            self.workers.end(worker, self.now_s)

    def _left(self, worker: Worker, since_s: float) -> None:
        if worker.state is State.LEAVING and worker.since_s == since_s:
            self.workers.end(worker, self.now_s)

    # the policy

    def _tick(self) -> None:
        snapshot, workers = self._snapshot(), self.workers
        decision = self.policy.decide(snapshot, self.state)
        self.state = decision.state
        wanted, before = snapshot.within_bounds(decision.capacity), workers.target
        if wanted > before:
            self._grow(wanted)
        elif wanted < before and self.terms.manner is Manner.CONSENT:
            self._ask_to_leave(wanted)
        elif wanted < before:
            self._cut(wanted)
        self.actions += workers.target != before
        if self.samples is not None:
            now = (self.now_s, workers.target, workers.serving, workers.booting, workers.busy, len(self.queue))
            self.samples.append(Sample(*now))
        self._at(self.terms.tick_s, _Kind.TICK)

    def _snapshot(self) -> Snapshot:
        terms, workers, now_s = self.terms, self.workers, self.now_s
        youngest_s, oldest_s = terms.counts_age_s
        age_s = self.random.uniform(youngest_s, oldest_s) + terms.cloudwatch_s
        told = self.history.at(now_s - age_s, oldest_s=now_s - oldest_s - terms.cloudwatch_s)
        booting = [worker for worker in workers.alive if worker.state is State.BOOTING] if workers.booting else ()
        return Snapshot(
            at_s=now_s,
            visible=told.visible,
            in_flight=told.in_flight,
            running=workers.busy,
            received_total=self.received,
            target=workers.target + len(workers.leaving),
            serving=workers.serving,
            booting_s=tuple([now_s - worker.born_s for worker in booting][::-1]),
            draining=workers.draining,
            service_s=self.service_s,
            boot_s=self.boot_s,
            min_capacity=terms.min_capacity,
            max_capacity=terms.max_capacity,
        )

    def _grow(self, wanted: int) -> None:
        """Take back those who are leaving, then ask for more."""
        for worker in self.workers.leaving[: wanted - self.workers.target]:
            self.workers.take_back(worker, self.now_s)
            self._free(worker)
        self.workers.target = wanted
        self._refill()
        self._count()

    def _ask_to_leave(self, wanted: int) -> None:
        """Call off what has not been launched; else ask a batch of idle workers, once the last batch has gone."""
        workers = self.workers
        if workers.leaving:
            return
        workers.target -= workers.call_off(workers.target - wanted)
        batch = min(workers.target - wanted, max(1, int(workers.serving * BATCH_SHARE)))
        for worker in sorted(workers.idle, key=lambda one: one.since_s)[:batch]:
            workers.begin_to_leave(worker, self.now_s)
            self._at(self.terms.leave_s, _Kind.LEFT, worker, self.now_s)

    def _cut(self, wanted: int) -> None:
        """Lower the target as a fleet does that ends whom it likes:
        killed tasks come back when their visibility ends.
        """
        workers = self.workers
        workers.target = wanted
        workers.call_off(len(workers.alive) + len(workers.requests) - wanted)
        for worker in self.random.sample(list(workers.alive), max(0, len(workers.alive) - wanted)):
            if worker.state is State.BUSY:
                self.killed += 1
                self.killed_away += 1
                self._at(self.terms.redelivery_s, _Kind.BACK, None, worker.task)
                self._put_down(worker)
            workers.end(worker, self.now_s)
        self._count()

    def _outcome(self) -> Outcome:
        undone = {*self.queue, *(int(event[4]) for event in self.events if event[1] == _Kind.BACK)}
        for worker in list(self.workers.alive):
            if worker.state is State.BUSY:
                self._put_down(worker)
            self.workers.end(worker, self.now_s)
        for task in undone:
            self.waits_s[task] = self.now_s - self.arrivals[task].at_s
        return Outcome(
            policy=self.policy.name,
            waits_s=tuple(self.waits_s),
            gpu_s=self.workers.gpu_s,
            busy_s=self.busy_s,
            killed=self.killed,
            interrupted=self.interrupted,
            actions=self.actions,
            peak=self.workers.peak,
            duration_s=self.now_s,
            unserved=len(self.arrivals) - self.finished,
            samples=tuple(self.samples or ()),
            price_usd_per_hour=self.terms.price_usd_per_hour,
            late_after_s=self.terms.late_after_s,
        )
