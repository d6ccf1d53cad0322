"""The order in which the loops start: from the end of a task's life to its beginning, once AWS has answered.

So nothing comes in before there is somewhere to go. `shutdown` has the way back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from queue import SimpleQueue

from scheduler.admission import Admission, Limits
from scheduler.announcing import Announcer
from scheduler.condition import Condition
from scheduler.config import Settings
from scheduler.domain.pace import MOST_IN_LINE
from scheduler.domain.ports import Clock, ImageStore, Inputs, MessageQueue, PreviewStore, TaskStore
from scheduler.domain.routing import Routes
from scheduler.domain.turns import Turns
from scheduler.held import HeldTasks
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
from scheduler.loops.render import RenderLoop
from scheduler.notify.webhook import WebhookSender
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.shutdown import Shutdown
from scheduler.stop import StopSignal
from scheduler.supervisor_program import POLL_MARGIN_S
from scheduler.task_processor import TaskProcessor, Terms
from scheduler.threads import Threads, every

STORE_THREADS = 6
"""Uploads beside each other: S3 answers in 50 to 100 ms, and the fastest engines finish 40 tasks a second."""
ANNOUNCE_THREADS = 6
"""The same for announcements: up to three calls each, as long as an upload together."""
WEBHOOK_THREADS = 8
"""Four receivers that keep silent hold up nobody else: each gets two of them."""
PREVIEW_PERIOD_S = 2.0
INTERRUPT_PERIOD_S = 0.25
PROGRESS_PERIOD_S = 2.0
FACTS_PERIOD_S = 300.0
"""How often the queue is asked for its facts again, which shows how this host's clock stands."""


def threads_that_call_aws(*, engines: int, queues: int) -> int:
    """Return how many threads may call one of AWS's clients at once."""
    return STORE_THREADS + ANNOUNCE_THREADS + MOST_IN_LINE * engines + queues + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """The parts of a worker that is about to begin, and the adapters that its loops call; `run` is called once."""

    settings: Settings
    clock: Clock
    stop: StopSignal
    metrics: Metrics
    threads: Threads
    held: HeldTasks
    lanes: Sequence[Lane]
    routes: Routes
    intake: Intake
    outages: Outages
    condition: Condition
    queues: Sequence[MessageQueue]
    """In their order of priority."""
    tasks: TaskStore
    images: ImageStore
    preview_store: PreviewStore
    inputs: Inputs
    announcer: Announcer
    webhooks: WebhookSender
    cost: Callable[[float], Decimal | None]
    look_again: Callable[[], None]

    def run(self) -> Shutdown:
        """Start every loop; return the way back."""
        messages = HeldMessages(self.queues, held=self.held, clock=self.clock, metrics=self.metrics, stop=self.stop)
        previews = PreviewLoop(self.lanes, self.preview_store, default_prefix=self.settings.scheduler.default_prefix)
        processor = self._task_processor(messages, previews)
        budget = ByteBudget(self.settings.scheduler.memory_mb * 1024 * 1024)
        finished: SimpleQueue[Finished | None] = SimpleQueue()
        keepers_stop = threading.Event()
        self._start_keepers(keepers_stop)
        self._start_onlookers(previews, keepers_stop)
        self._start_finishing(messages, processor, budget, finished)
        for lane in self.lanes:
            self._start_engine(lane, messages, processor, budget, finished)
        self._start_receiving(self._admission(messages, processor))
        return Shutdown(
            stop=self.stop,
            threads=self.threads,
            lanes=self.lanes,
            held=self.held,
            messages=messages,
            processor=processor,
            finished=finished,
            webhooks=self.webhooks,
            keepers_stop=keepers_stop,
            clock=self.clock,
            longest_poll_s=self.settings.scheduler.poll_interval + POLL_MARGIN_S,
        )

    def _task_processor(self, messages: HeldMessages, previews: PreviewLoop) -> TaskProcessor:
        scheduler = self.settings.scheduler
        return TaskProcessor(
            terms=Terms(
                lease_s=self.condition.lease_s,
                max_runs=scheduler.max_runs,
                default_prefix=scheduler.default_prefix,
            ),
            held=self.held,
            messages=messages,
            outages=self.outages,
            tasks=self.tasks,
            images=self.images,
            routes=self.routes,
            clock=self.clock,
            metrics=self.metrics,
            stop=self.stop,
            cost=self.cost,
            announces=self.announcer.wants,
            hide_preview=previews.hide,
        )

    def _admission(self, messages: HeldMessages, processor: TaskProcessor) -> Admission:
        return Admission(
            processor=processor,
            messages=messages,
            held=self.held,
            tasks=self.tasks,
            routes=self.routes,
            inputs=self.inputs,
            clock=self.clock,
            stop=self.stop,
            limits=Limits(
                body_bytes=self.settings.inputs.max_bytes,
                held_bytes=self.settings.scheduler.memory_mb * 1024 * 1024,
            ),
            is_up=partial(is_served, self.lanes),
        )

    def _start_keepers(self, keepers_stop: threading.Event) -> None:
        """Start what keeps the messages and the claims of everything held."""
        held, clock, metrics, lease_s = self.held, self.clock, self.metrics, self.condition.lease_s
        period_s = lease_s / RENEWALS_PER_LEASE
        visibility = VisibilityKeeper(self.queues, held=held, clock=clock, metrics=metrics)
        claims = ClaimKeeper(self.tasks, held=held, lease_s=lease_s, clock=clock, metrics=metrics)
        for lane in self.lanes:
            interrupting = partial(every, INTERRUPT_PERIOD_S, Interrupter([lane]).cycle, stop=keepers_stop)
            self.threads.start("interrupt", interrupting)
        for keeper in (visibility, claims):
            cycle = partial(keeper.cycle, due_after_s=period_s / 2)
            self.threads.start("keep", partial(every, period_s, cycle, stop=keepers_stop))

    def _start_onlookers(self, previews: PreviewLoop, keepers_stop: threading.Event) -> None:
        """Start what only looks on, and whose errors therefore cost nothing."""

        def show_previews() -> None:
            every(PREVIEW_PERIOD_S, previews.cycle, stop=keepers_stop, is_vital=False)
            previews.clear()

        looking = partial(every, stop=keepers_stop, is_vital=False)
        self.threads.start("progress", partial(looking, PROGRESS_PERIOD_S, ProgressLoop(self.lanes).cycle))
        self.threads.start("preview", show_previews)
        self.threads.start("facts", partial(looking, FACTS_PERIOD_S, self.look_again))

    def _start_finishing(
        self,
        messages: HeldMessages,
        processor: TaskProcessor,
        budget: ByteBudget,
        finished: SimpleQueue[Finished | None],
    ) -> None:
        announce = AnnounceLoop(
            processor.announcements, self.announcer, messages=messages, outages=self.outages, stop=self.stop
        )
        self.threads.start("delete", DeleteLoop(messages, self.outages, self.stop).run)
        for _ in range(WEBHOOK_THREADS):
            self.threads.start("webhook", self.webhooks.run)
        for _ in range(ANNOUNCE_THREADS):
            self.threads.start("announce", announce.run)
        for _ in range(STORE_THREADS):
            self.threads.start("store", StoreLoop(finished, processor, budget).run)

    def _start_engine(
        self,
        lane: Lane,
        messages: HeldMessages,
        processor: TaskProcessor,
        budget: ByteBudget,
        finished: SimpleQueue[Finished | None],
    ) -> None:
        """Start the loops of one engine: what decodes its answers, what calls it, what prepares its next tasks."""
        held, clock, stop = self.held, self.clock, self.stop
        render = RenderLoop(
            lane,
            processor=processor,
            messages=messages,
            outages=self.outages,
            held=held,
            clock=clock,
            metrics=self.metrics,
            stop=stop,
            lanes=self.lanes,
            deadline_s=self.settings.scheduler.task_deadline_s,
            lease_s=self.condition.lease_s,
        )
        prepare = PrepareLoop(
            lane, processor=processor, messages=messages, held=held, budget=budget, clock=clock, stop=stop
        )
        self.threads.start("decode", DecodeLoop(render.outcomes, finished, held).run)
        self.threads.start("engine", render.run)
        for _ in range(MOST_IN_LINE):
            self.threads.start("prepare", prepare.run)

    def _start_receiving(self, admission: Admission) -> None:
        scheduler = self.settings.scheduler
        turns = Turns(len(self.queues), self.clock)
        self.condition.receivers = receivers = [
            ReceiveLoop(
                queue,
                index=index,
                turns=turns,
                lanes=self.lanes,
                admission=admission,
                outages=self.outages,
                held=self.held,
                intake=self.intake,
                clock=self.clock,
                metrics=self.metrics,
                stop=self.stop,
                skewed=self.condition.skewed,
                most=scheduler.max_tasks_per_poll,
                wait_s=scheduler.poll_interval,
            )
            for index, queue in enumerate(self.queues)
        ]
        for receiver in receivers:
            self.threads.start("receive", receiver.run)
