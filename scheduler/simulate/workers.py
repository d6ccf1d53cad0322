"""The workers of a simulated fleet: who boots, idles, works and leaves, what was asked for, and what was billed."""

from __future__ import annotations

import random
from enum import IntEnum

from scheduler.simulate.model import Terms


class State(IntEnum):
    """What a worker is doing."""

    BOOTING = 0
    IDLE = 1
    BUSY = 2
    LEAVING = 3
    """It has been asked to go, has agreed, and takes nothing any more."""
    GONE = 4


class Worker:
    """One worker, from its launch to its end."""

    __slots__ = ("born_s", "is_noticed", "model", "place", "since_s", "state", "task")

    def __init__(self, born_s: float) -> None:
        self.state = State.BOOTING
        self.born_s = self.since_s = born_s
        self.model: str | None = None
        """The checkpoint that is loaded."""
        self.task = -1
        self.is_noticed = False
        """Whether EC2 has said that it takes this worker."""
        self.place = -1
        """Where it stands among the idle."""


class Workers:
    """All of them, counted. `target` is what the fleet holds itself to; those who leave are not part of it."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.target = terms.min_capacity
        self.alive: dict[Worker, None] = {}
        """In the order of their launches."""
        self.idle: list[Worker] = []
        self.leaving: list[Worker] = []
        self.requests: list[int] = []
        """What was asked for and has not been launched."""
        self.booting = self.busy = self.noticed = 0
        """`noticed` counts those with a notice that still work."""
        self.peak = 0
        self.gpu_s = 0.0
        self._asked = 0

    @property
    def serving(self) -> int:
        """Workers that take work."""
        return len(self.alive) - self.booting - self.draining

    @property
    def draining(self) -> int:
        """Workers that are on their way out."""
        return len(self.leaving) + self.noticed

    @property
    def missing(self) -> int:
        """How many more have to be asked for."""
        return max(0, self.target - len(self.alive) + len(self.leaving) - len(self.requests))

    def ask(self) -> int:
        """Ask for one more; return the request's number."""
        self._asked += 1
        self.requests.append(self._asked)
        return self._asked

    def call_off(self, count: int) -> int:
        """Take back up to `count` requests, the youngest first; return how many."""
        count = max(0, min(count, len(self.requests)))
        del self.requests[len(self.requests) - count :]
        return count

    def has_room(self, now_s: float) -> bool:
        """Tell whether EC2 launches another one now."""
        return all(
            len(self.alive) < shortage.most
            for shortage in self.terms.shortages
            if shortage.from_s <= now_s < shortage.until_s
        )

    def launch(self, request: int, now_s: float) -> Worker:
        """Return the worker that comes of a request."""
        self.requests.remove(request)
        worker = Worker(now_s)
        self.alive[worker] = None
        self.booting += 1
        self.peak = max(self.peak, len(self.alive))
        return worker

    def be_ready(self, worker: Worker, now_s: float) -> None:
        """Let a booted one join the idle."""
        self.booting -= 1
        self.be_idle(worker, now_s)

    def be_idle(self, worker: Worker, now_s: float) -> None:
        """Let it wait for work."""
        worker.state, worker.since_s, worker.place = State.IDLE, now_s, len(self.idle)
        self.idle.append(worker)

    def one_idle(self, chance: random.Random) -> Worker:
        """Return one that waits for work, chosen as SQS does among long polls: at random."""
        return self.idle[int(chance.random() * len(self.idle))]

    def begin(self, worker: Worker, task: int, now_s: float) -> None:
        """Let an idle one work."""
        self._leave_the_idle(worker)
        worker.state, worker.since_s, worker.task = State.BUSY, now_s, task
        self.busy += 1

    def notice(self, worker: Worker) -> None:
        """Let EC2 say that it takes this worker."""
        worker.is_noticed = True
        self.noticed += worker.state is State.BUSY

    def put_down(self, worker: Worker, now_s: float) -> float:
        """End a run, well or not, and let it idle; return how long it took."""
        took_s = now_s - worker.since_s
        worker.task = -1
        self.busy -= 1
        self.noticed -= worker.is_noticed
        self.be_idle(worker, now_s)
        return took_s

    def begin_to_leave(self, worker: Worker, now_s: float) -> None:
        """Let an idle one go; the target counts it no more."""
        self._leave_the_idle(worker)
        worker.state, worker.since_s = State.LEAVING, now_s
        self.leaving.append(worker)
        self.target -= 1

    def take_back(self, worker: Worker, now_s: float) -> None:
        """Let one that leaves wait for work again."""
        self.leaving.remove(worker)
        self.target += 1
        self.be_idle(worker, now_s)

    def end(self, worker: Worker, now_s: float) -> None:
        """Bill one that is not at work, and forget it."""
        if worker.state is State.IDLE:
            self._leave_the_idle(worker)
        elif worker.state is State.BOOTING:
            self.booting -= 1
        elif worker.state is State.LEAVING:
            self.leaving.remove(worker)
        worker.state = State.GONE
        del self.alive[worker]
        self.gpu_s += max(self.terms.least_billed_s, now_s - worker.born_s)

    def _leave_the_idle(self, worker: Worker) -> None:
        last = self.idle.pop()
        if last is not worker:
            self.idle[worker.place] = last
            last.place = worker.place
        worker.place = -1
