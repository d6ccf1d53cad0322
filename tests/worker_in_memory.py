"""A whole worker over the fakes, on one thread: each loop is stepped by the test, and waits pass on the fake clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from queue import SimpleQueue
from typing import Any

from fakes import (
    FakeAnswer,
    FakeClock,
    FakeEngine,
    FakeImageStore,
    FakeInputs,
    FakePreviews,
    FakeQueue,
    FakeTaskStore,
    FakeTopic,
    FakeWebhooks,
)

from scheduler.admission import Admission, Limits
from scheduler.announcing import Announcer
from scheduler.domain.pace import Pace
from scheduler.domain.ports import PreparedRun
from scheduler.domain.routing import Routes
from scheduler.domain.turns import Turns
from scheduler.held import Held, HeldTasks, Signal, State
from scheduler.held_messages import HeldMessages
from scheduler.intake import Intake
from scheduler.loops.announce import AnnounceLoop
from scheduler.loops.byte_budget import ByteBudget
from scheduler.loops.finish import DecodeLoop, DeleteLoop, Finished, StoreLoop
from scheduler.loops.keep import RENEWALS_PER_LEASE, ClaimKeeper, Interrupter, VisibilityKeeper
from scheduler.loops.lane import Lane, is_served
from scheduler.loops.prepare import PrepareLoop
from scheduler.loops.preview import PreviewLoop
from scheduler.loops.progress import ProgressLoop
from scheduler.loops.receive import ReceiveLoop
from scheduler.loops.render import SLOW_END_S, RenderLoop
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.stop import StopSignal
from scheduler.task_processor import TaskProcessor, Terms

LEASE_S = 30
DEADLINE_S = 600.0
PERIOD_S = LEASE_S / RENEWALS_PER_LEASE
MiB = 1024 * 1024


class Journal:
    """What was called, in order, over all fakes: ``tasks.claim``, and ``tasks.claim!`` for a call that failed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def note(self, call: str) -> None:
        self.calls.append(call)

    def of(self, *names: str) -> list[str]:
        """Return the calls of these names only, failed ones included."""
        return [call for call in self.calls if call.rstrip("!") in names]


class Journalled:
    """Stands before a port and notes what is called."""

    CALLS = frozenset(
        {"read", "claim", "renew", "release", "complete", "fail", "cancelled", "close_unclaimed", "announced"}
        | {"receive", "extend", "give_back", "delete", "refuse", "put", "put_json", "publish", "send"}
    )

    def __init__(self, port: Any, name: str, journal: Journal) -> None:
        self._port = port
        self._name = name
        self._journal = journal

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._port, attribute)
        if attribute not in self.CALLS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            name = f"{self._name}.{attribute}"
            try:
                answer = found(*args, **kwargs)
            except Exception:
                self._journal.note(f"{name}!")
                raise
            self._journal.note(name)
            return answer

        return call


class PatientStop(StopSignal):
    """Its waits pass on the fake clock; `meanwhile` happens in each, and may mend the world."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self._fake = clock
        self.meanwhile: Callable[[], None] = lambda: None
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        if not self.is_set():
            self._pass(seconds)
        return self.is_set()

    def pause(self, seconds: float) -> None:
        self._pass(min(seconds, 0.5, self.left_s()) if self.is_set() else seconds)

    def _pass(self, seconds: float) -> None:
        assert len(self.waits) < 10_000, "this waits for ever"
        self.waits.append(seconds)
        self._fake.advance(seconds)
        self.meanwhile()


class PatientBudget(ByteBudget):
    """A reservation that has to wait lets `meanwhile` happen."""

    def __init__(self, limit_bytes: int, clock: FakeClock) -> None:
        super().__init__(limit_bytes)
        self._fake = clock
        self.meanwhile: Callable[[], None] = lambda: None

    def reserve(self, size_bytes: int, timeout_s: float) -> bool:
        if super().reserve(size_bytes, 0.0):
            return True
        self._fake.advance(timeout_s)
        self.meanwhile()
        return False


class ScriptedEngine(FakeEngine):
    """During each render `meanwhile` happens; posts stand in the journal."""

    def __init__(self, clock: FakeClock, journal: Journal, **options: Any) -> None:
        super().__init__(clock, **options)
        self._journal = journal
        self.meanwhile: Callable[[], None] = lambda: None
        self.before_sent: Callable[[], None] = lambda: None

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> FakeAnswer:
        def sent(job_id: str | None) -> None:
            self._journal.note("engine.post")
            self.before_sent()
            if on_sent is not None:
                on_sent(job_id)

        return super().generate(run, deadline_s=deadline_s, on_sent=sent)

    def _render(self, run: PreparedRun, deadline_s: float) -> None:
        self.meanwhile()
        super()._render(run, deadline_s)

    @property
    def posted(self) -> list[str]:
        """The ids of the tasks posted, in order."""
        return [run.task.task_id for run in self.posts]


def body_of(task_id: str = "t1", **changes: Any) -> str:
    """Return a message in our own format; `payload` entries and other keys may be given."""
    payload = {"prompt": task_id, "steps": 20, "width": 512, "height": 512} | changes.pop("payload", {})
    return json.dumps({"task_id": task_id, "task_type": "txt2img", "payload": payload} | changes)


class Worker:
    """Everything that a scheduler has for one host, by the names of the parts."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        queues: int = 1,
        engines: int = 1,
        max_runs: int = 3,
        memory_bytes: int = 256 * MiB,
        most: int = 10,
        lease_s: int = LEASE_S,
        tasks: FakeTaskStore | None = None,
        queue: FakeQueue | None = None,
        images: FakeImageStore | None = None,
        topic: FakeTopic | None = None,
        **engine: Any,
    ) -> None:
        self.clock = clock
        self.journal = Journal()
        self.tasks = tasks or FakeTaskStore(clock, max_runs=max_runs)
        self.images = images or FakeImageStore()
        self.queues = [queue or FakeQueue(clock, lease_s=lease_s, longest_wait_s=0.0)]
        self.queues += [FakeQueue(clock, index=n, lease_s=lease_s, longest_wait_s=0.0) for n in range(1, queues)]
        self.queue = self.queues[0]
        self.engines = [ScriptedEngine(clock, self.journal, name=f"engine-{n}", **engine) for n in range(engines)]
        self.engine = self.engines[0]
        self.metrics = Metrics()
        self.stop = PatientStop(clock)
        self.held = HeldTasks(clock)
        for waited_for in (self.held.room, self.held.choice, self.held.offered):
            _make_patient(waited_for, clock)
        self.budget = PatientBudget(memory_bytes, clock)
        routes = Routes(self.engines)
        self.inputs = FakeInputs()
        paces = {each.runtimes: Pace() for each in self.engines}
        self.lanes = [
            Lane(each, self.held, clock, pace=paces[each.runtimes], is_for=partial(routes.leads_to, each))
            for each in self.engines
        ]
        self.lane = self.lanes[0]
        for lane in self.lanes:
            lane.set_ready(ready=True)
        self.skewed: str | None = None
        self.finished: SimpleQueue[Finished | None] = SimpleQueue()
        ports = [Journalled(each, "queue", self.journal) for each in self.queues]
        records = Journalled(self.tasks, "tasks", self.journal)
        stored = Journalled(self.images, "images", self.journal)
        self.topic = topic
        self.webhooks = FakeWebhooks()
        self.announcer = Announcer(
            tasks=records,
            images=stored,
            bucket="pictures",
            address="https://cdn.example.com/{}".format,
            topic=topic and Journalled(topic, "topic", self.journal),
            webhooks=Journalled(self.webhooks, "webhooks", self.journal),
            metrics=self.metrics,
        )
        common: dict[str, Any] = {"held": self.held, "clock": clock}
        self.outages = Outages(stop=self.stop, metrics=self.metrics)
        self.messages = HeldMessages(ports, metrics=self.metrics, stop=self.stop, **common)
        self.shown = FakePreviews()
        self.previews = PreviewLoop(self.lanes, self.shown, default_prefix="tasks")
        self.processor = TaskProcessor(
            terms=Terms(lease_s=lease_s, max_runs=max_runs, default_prefix="tasks"),
            messages=self.messages,
            outages=self.outages,
            tasks=records,
            images=stored,
            routes=routes,
            metrics=self.metrics,
            stop=self.stop,
            cost=lambda gpu_s: None if self.usd_per_second is None else Decimal(str(gpu_s)) * self.usd_per_second,
            announces=self.announcer.wants,
            hide_preview=self.previews.hide,
            **common,
        )
        self.admission = Admission(
            processor=self.processor,
            messages=self.messages,
            tasks=records,
            routes=routes,
            inputs=self.inputs,
            stop=self.stop,
            limits=Limits(body_bytes=MiB, held_bytes=memory_bytes),
            is_up=partial(is_served, self.lanes),
            **common,
        )
        stopping = common | {"stop": self.stop}
        working = stopping | {"processor": self.processor, "messages": self.messages}
        turns = Turns(queues, clock)
        self.intake = Intake()
        self.usd_per_second: Decimal | None = None
        self.receives = [
            ReceiveLoop(
                port,
                index=n,
                turns=turns,
                lanes=self.lanes,
                metrics=self.metrics,
                intake=self.intake,
                skewed=lambda: self.skewed,
                most=most,
                wait_s=10,
                admission=self.admission,
                outages=self.outages,
                **stopping,
            )
            for n, port in enumerate(ports)
        ]
        self.prepares = [PrepareLoop(lane, budget=self.budget, **working) for lane in self.lanes]
        self.renders = [
            RenderLoop(
                lane,
                outages=self.outages,
                metrics=self.metrics,
                lanes=self.lanes,
                deadline_s=DEADLINE_S,
                lease_s=lease_s,
                **working,
            )
            for lane in self.lanes
        ]
        self.render = self.renders[0]
        self.visibility = VisibilityKeeper(ports, metrics=self.metrics, **common)
        self.claims = ClaimKeeper(records, lease_s=lease_s, metrics=self.metrics, **common)
        self.interrupter = Interrupter(self.lanes)
        self.progress = ProgressLoop(self.lanes)
        self.announces = AnnounceLoop(
            self.processor.announcements,
            self.announcer,
            messages=self.messages,
            outages=self.outages,
            stop=self.stop,
        )
        self.deletes = DeleteLoop(self.messages, self.outages, self.stop)

    # one step of each loop

    def send(self, task_id: str = "t1", *, queue: int = 0, **changes: Any) -> str:
        return self.queues[queue].send(body_of(task_id, **changes))

    def receive(self, queue: int = 0) -> None:
        self.receives[queue].cycle()

    def prepare(self, lane: int = 0) -> None:
        self.prepares[lane].cycle()

    def decode(self) -> None:
        """Read whatever the engines' threads have handed on."""
        for render in self.renders:
            render.outcomes.put(None)
            DecodeLoop(render.outcomes, self.finished, self.held).run()

    def store(self) -> None:
        """Read and store whatever the engines' threads have handed on."""
        self.decode()
        self.finished.put(None)
        StoreLoop(self.finished, self.processor, self.budget).run()

    def announce(self) -> None:
        """Announce whatever has its end, trying again until it is told."""
        self.processor.announcements.put(None)
        self.announces.run()

    def delete(self) -> None:
        """Delete whatever is done, trying again until it is."""
        self.messages.deletions.put(None)
        self.deletes.run()

    def keep(self) -> None:
        """One turn of both keepers, as their thread takes it."""
        self.visibility.cycle(due_after_s=PERIOD_S / 2)
        self.claims.cycle(due_after_s=PERIOD_S / 2)
        self.interrupter.cycle()

    def renders_until_settled(self) -> None:
        """Render what is in line, then let the engine's thread find nothing more, so that it hands everything on."""
        for _ in range(1000):
            if self.lane.peek() is None:
                break
            self.render.cycle()
            if self.held.longest_end_s() > SLOW_END_S:
                self.store()  # whose threads do not wait for a turn of a test's
        else:
            raise AssertionError("the engine's thread never took what is in line")
        self.render.cycle()

    def work(self, rounds: int = 1) -> None:
        """Take each loop through its turn so often."""
        for _ in range(rounds):
            for n in range(len(self.queues)):
                self.receive(n)
            self.prepare()
            self.renders_until_settled()
            self.store()
            self.announce()
            self.delete()

    # what is there

    def take(self, task_id: str = "t1", **changes: Any) -> Held:
        """Send, receive and hold one task."""
        self.send(task_id, **changes)
        self.admit()
        return self.one(task_id)

    def admit(self, queue: int = 0, most: int = 10) -> None:
        """Admit what lies in a queue, without asking whether there is room."""
        self.admission.admit(self.queues[queue].receive(most, wait_s=0))

    def claimed(self, task_id: str = "t1", **changes: Any) -> Held:
        """Take one task as far as the engine's line."""
        held = self.take(task_id, **changes)
        self.prepare()
        assert held.state is State.READY
        return held

    def one(self, task_id: str = "t1") -> Held:
        return next(held for held in self.held.all() if held.task.task_id == task_id)

    @property
    def held_ids(self) -> list[str]:
        return [held.task.task_id for held in self.held.all()]

    def status(self, task_id: str = "t1") -> str | None:
        record = self.tasks.record(task_id)
        return None if record is None else record["status"]

    def counted(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(f"sd_scheduler_{name}", labels) or 0.0


def _make_patient(signal: Signal, clock: FakeClock) -> None:
    def wait(seen: int, timeout_s: float) -> None:
        if signal.version == seen:
            clock.advance(timeout_s)

    signal.wait = wait  # type: ignore[method-assign]
