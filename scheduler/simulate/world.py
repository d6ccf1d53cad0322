"""A fleet on a virtual clock: one queue, workers that boot, work, idle and go, and a policy that is asked at each tick.

Only what costs or delays is modelled: the protocol of the real fleet appears as what it takes (`Terms.leave_s`, one batch
of idle workers at a time, drains taken back). Events are worked off in the order of their times; between them nothing
happens, so that a million tasks take seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Sequence
from enum import IntEnum

from scheduler.autoscale.plan import BATCH_SHARE
from scheduler.autoscale.snapshot import Policy, PolicyState, Snapshot
from scheduler.autoscale.survey import BOOT_WEIGHT, SERVICE_WEIGHT
from scheduler.simulate.model import Arrival, Manner, Outcome, Sample, Terms

FIRST_SERVICE_S = 20.0
"""What a task is taken to need before any has been measured, as the real leader takes it."""
HOUR_S = 3600.0


class _State(IntEnum):
    BOOTING = 0
    IDLE = 1
    BUSY = 2
    LEAVING = 3
    GONE = 4


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


class _Worker:
    __slots__ = ("announced", "born_s", "idle_since_s", "model", "place", "state", "task")

    def __init__(self, born_s: float) -> None:
        self.state = _State.BOOTING
        self.born_s = born_s
        self.idle_since_s = 0.0
        self.model: str | None = None
        self.task = -1
        self.announced = False
        """Whether EC2 has said that it takes this worker."""
        self.place = -1
        """Where it stands among the idle."""


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
        self.events: list[tuple[float, int, int, object, int]] = []
        self.order = itertools.count()
        self.queue: deque[int] = deque()
        self.workers: set[_Worker] = set()
        self.idle: list[_Worker] = []
        self.leaving: list[_Worker] = []
        self.requested = 0
        self.target = terms.min_capacity
        self.capacity_left = math.inf if terms.capacity_left is None else terms.capacity_left
        self.busy = self.booting = 0
        self.received = self.finished = 0
        self.service_s, self.boot_s = FIRST_SERVICE_S, terms.launch_s + terms.boot_s
        self.state: PolicyState = {}
        self.counts: deque[tuple[float, int, int]] = deque([(-math.inf, 0, 0)])
        self.waits_s = [0.0] * len(arrivals)
        self.begun_s: dict[int, float] = {}
        self.gpu_s = self.busy_s = 0.0
        self.killed = self.interrupted = self.actions = self.peak = 0
        self.samples: list[Sample] | None = [] if keep_samples else None

    def run(self) -> Outcome:
        arrivals, events, count = self.arrivals, self.events, len(self.arrivals)
        self._refill()
        self._at(0.0, _Kind.TICK)
        following = 0
        while self.finished < count:
            if following < count and (not events or arrivals[following].at_s <= events[0][0]):
                self.now_s = arrivals[following].at_s
                self.queue.append(following)
                following += 1
                self._hand_out()
            else:
                self.now_s, kind, _, subject, number = heapq.heappop(events)
                self._happen(_Kind(kind), subject, number)
        for worker in list(self.workers):
            self._end(worker)
        return self._outcome()

    def _at(self, seconds: float, kind: _Kind, subject: object = None, number: int = 0) -> None:
        heapq.heappush(self.events, (self.now_s + seconds, kind, next(self.order), subject, number))

    def _happen(self, kind: _Kind, subject: object, number: int) -> None:
        if kind is _Kind.TICK:
            self._tick()
        elif kind is _Kind.LAUNCH:
            self._launch()
        elif kind is _Kind.BACK:
            self.queue.append(number)
            self._hand_out()
        elif isinstance(subject, _Worker) and subject.state is not _State.GONE:
            if kind is _Kind.DONE:
                self._done(subject, number)
            elif kind is _Kind.READY:
                self._ready(subject)
            elif kind is _Kind.LEFT:
                self._left(subject, number)
            elif kind is _Kind.NOTICE:
                self._notice(subject)
            elif kind is _Kind.RECLAIM:
                self._reclaim(subject)
            elif kind is _Kind.IDLE_EXIT:
                self._idle_exit(subject, number)

    # work

    def _hand_out(self) -> None:
        """Give what waits to idle workers, each chosen at random as SQS does among long polls."""
        while self.queue and self.idle:
            worker = self.idle[self.random.randrange(len(self.idle))]
            self._leave_the_idle(worker)
            self._begin(worker, self.queue.popleft())
        self._count()

    def _begin(self, worker: _Worker, number: int) -> None:
        arrival, switch_s = self.arrivals[number], self.terms.switch_s
        needs_switch = bool(arrival.model) and worker.model != arrival.model
        took_s = max(1.0, arrival.service_s - (switch_s if arrival.model else 0.0)) + (switch_s if needs_switch else 0)
        worker.model = arrival.model or worker.model
        worker.state, worker.task = _State.BUSY, number
        self.busy += 1
        self.received += number not in self.begun_s
        self.begun_s[number] = self.now_s
        self.waits_s[number] = self.now_s - arrival.at_s
        self._at(took_s, _Kind.DONE, worker, number)

    def _done(self, worker: _Worker, number: int) -> None:
        if worker.task != number:
            return
        took_s = self._put_down(worker)
        del self.begun_s[number]
        self.finished += 1
        self.service_s += SERVICE_WEIGHT * (took_s - self.service_s)
        if worker.announced:
            self._end(worker)
            self._refill()
        else:
            self._be_idle(worker)
        self._count()

    def _put_down(self, worker: _Worker) -> float:
        """End a run, well or not; return how long it took."""
        took_s = self.now_s - self.begun_s[worker.task]
        worker.task = -1
        self.busy -= 1
        self.busy_s += took_s
        return took_s

    def _be_idle(self, worker: _Worker) -> None:
        if self.queue:
            self._begin(worker, self.queue.popleft())
            return
        worker.state, worker.idle_since_s, worker.place = _State.IDLE, self.now_s, len(self.idle)
        self.idle.append(worker)
        if self.terms.idle_exit_s is not None:
            self._at(self.terms.idle_exit_s, _Kind.IDLE_EXIT, worker, round(self.now_s * 1000))

    def _leave_the_idle(self, worker: _Worker) -> None:
        last = self.idle.pop()
        if last is not worker:
            self.idle[worker.place] = last
            last.place = worker.place
        worker.place = -1

    def _count(self) -> None:
        """Remember what SQS would tell now, for those who ask later and are told of the past."""
        self.counts.append((self.now_s, len(self.queue), self.busy))

    # workers

    def _refill(self) -> None:
        """Ask for what the target lacks."""
        have = len(self.workers) - len(self.leaving) + self.requested
        while have < self.target and self.capacity_left > 0:
            self.requested += 1
            self.capacity_left -= 1
            have += 1
            self._at(self.terms.launch_s, _Kind.LAUNCH)

    def _launch(self) -> None:
        if self.requested == 0:
            return  # it was called off
        self.requested -= 1
        worker, terms = _Worker(self.now_s), self.terms
        self.workers.add(worker)
        self.booting += 1
        self.peak = max(self.peak, len(self.workers))
        sigma = terms.boot_sigma
        self._at(terms.boot_s * math.exp(self.random.gauss(0.0, sigma) - sigma * sigma / 2), _Kind.READY, worker)
        if terms.reclaims_per_hour:
            self._at(self.random.expovariate(terms.reclaims_per_hour) * HOUR_S, _Kind.NOTICE, worker)

    def _ready(self, worker: _Worker) -> None:
        self.booting -= 1
        self.boot_s += BOOT_WEIGHT * (self.terms.launch_s + self.now_s - worker.born_s - self.boot_s)
        if worker.announced:
            worker.state = _State.IDLE
            self._end(worker)
            self._refill()
        else:
            self._be_idle(worker)
            self._count()

    def _notice(self, worker: _Worker) -> None:
        """EC2 takes it: it takes nothing new, and finishes what it can."""
        worker.announced = True
        if worker.state is _State.IDLE:
            self._end(worker)
            self._refill()
        elif worker.state is not _State.LEAVING:
            self._at(self.terms.notice_s, _Kind.RECLAIM, worker)

    def _reclaim(self, worker: _Worker) -> None:
        if worker.task >= 0:
            number = worker.task
            self._put_down(worker)
            self.interrupted += 1
            self.queue.appendleft(number)
        self._end(worker)
        self._refill()
        self._hand_out()

    def _end(self, worker: _Worker) -> None:
        if worker.task >= 0:
            self._put_down(worker)
        if worker.place >= 0:
            self._leave_the_idle(worker)
        if worker.state is _State.BOOTING:
            self.booting -= 1
        if worker.state is _State.LEAVING:
            self.leaving.remove(worker)
        worker.state = _State.GONE
        self.workers.discard(worker)
        self.gpu_s += max(self.terms.least_billed_s, self.now_s - worker.born_s)

    def _idle_exit(self, worker: _Worker, since_ms: int) -> None:
        if worker.state is not _State.IDLE or round(worker.idle_since_s * 1000) != since_ms:
            return
        if self.target > self.terms.min_capacity:
            self.target -= 1
            self.actions += 1
            self._end(worker)

    # the policy

    def _tick(self) -> None:
        snapshot = self._snapshot()
        decision = self.policy.decide(snapshot, self.state)
        self.state = decision.state
        wanted = snapshot.within_bounds(decision.capacity)
        if wanted != self.target:
            before = self.target
            if wanted > before:
                self._grow(wanted)
            elif self.terms.manner is Manner.CONSENT:
                self._ask_to_leave(wanted)
            else:
                self._cut(wanted)
            self.actions += self.target != before
        if self.samples is not None:
            serving = len(self.workers) - self.booting - len(self.leaving)
            waiting = len(self.queue)
            self.samples.append(Sample(self.now_s, self.target, serving, self.booting, self.busy, waiting))
        self._at(self.terms.tick_s, _Kind.TICK)

    def _snapshot(self) -> Snapshot:
        terms = self.terms
        visible, in_flight = self._told_counts(self.random.uniform(*terms.counts_age_s) + terms.cloudwatch_s)
        booting_s = tuple(sorted(self.now_s - w.born_s for w in self.workers if w.state is _State.BOOTING))
        return Snapshot(
            at_s=self.now_s,
            visible=visible,
            in_flight=in_flight,
            running=self.busy,
            received_total=self.received,
            finished_total=self.finished,
            target=self.target,
            serving=len(self.workers) - self.booting - len(self.leaving),
            booting_s=booting_s if self.booting else (),
            draining=len(self.leaving),
            service_s=self.service_s,
            boot_s=self.boot_s,
            min_capacity=terms.min_capacity,
            max_capacity=terms.max_capacity,
        )

    def _told_counts(self, age_s: float) -> tuple[int, int]:
        """Return the queue's counts as they were so long ago."""
        at_s, counts = self.now_s - age_s, self.counts
        oldest_s = self.now_s - self.terms.counts_age_s[1] - self.terms.cloudwatch_s
        while len(counts) > 1 and counts[1][0] <= oldest_s:
            counts.popleft()
        told = counts[0]
        for count in counts:
            if count[0] > at_s:
                break
            told = count
        return told[1], told[2]

    def _grow(self, wanted: int) -> None:
        """Take back those who are leaving, then ask for more."""
        for worker in self.leaving[: wanted - self.target]:
            self.leaving.remove(worker)
            self.target += 1
            self._be_idle(worker)
        self.target = max(self.target, wanted)
        self._refill()
        self._count()

    def _ask_to_leave(self, wanted: int) -> None:
        """Call off what has not been launched; else ask a batch of idle workers, once the last batch has gone."""
        called_off = min(self.requested, self.target - wanted)
        self.requested -= called_off
        self.capacity_left += called_off
        self.target -= called_off
        if self.leaving:
            return
        serving = len(self.workers) - self.booting
        batch = min(self.target - wanted, max(1, int(serving * BATCH_SHARE)), len(self.idle))
        for worker in sorted(self.idle, key=lambda one: one.idle_since_s)[:batch]:
            self._leave_the_idle(worker)
            worker.state = _State.LEAVING
            self.leaving.append(worker)
            self.target -= 1
            worker.idle_since_s = self.now_s
            self._at(self.terms.leave_s, _Kind.LEFT, worker, round(self.now_s * 1000))

    def _left(self, worker: _Worker, since_ms: int) -> None:
        if worker.state is _State.LEAVING and round(worker.idle_since_s * 1000) == since_ms:
            self._end(worker)

    def _cut(self, wanted: int) -> None:
        """Lower the target as a fleet does that ends whom it likes: killed tasks come back when their visibility ends."""
        self.target = wanted
        have = len(self.workers) + self.requested
        called_off = min(self.requested, have - wanted)
        self.requested -= called_off
        self.capacity_left += called_off
        victims = self.random.sample(
            sorted(self.workers, key=lambda one: one.born_s), max(0, have - called_off - wanted)
        )
        for worker in victims:
            if worker.task >= 0:
                self.killed += 1
                self._at(self.terms.redelivery_s, _Kind.BACK, None, worker.task)
            self._end(worker)
        self._count()

    def _outcome(self) -> Outcome:
        return Outcome(
            policy=self.policy.name,
            waits_s=tuple(self.waits_s),
            gpu_s=self.gpu_s,
            busy_s=self.busy_s,
            killed=self.killed,
            interrupted=self.interrupted,
            actions=self.actions,
            peak=self.peak,
            duration_s=self.now_s,
            samples=tuple(self.samples or ()),
            price_usd_per_hour=self.terms.price_usd_per_hour,
            late_after_s=self.terms.late_after_s,
        )
