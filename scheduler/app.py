"""The composition root: settings become adapters, services and threads, in the order of the start.

Health first, so that waiting can be seen; then AWS's facts; then the loops, from the end of a task's life to its
beginning, so that nothing comes in before there is somewhere to go. `shutdown` has the way back.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from scheduler.admission import Admission, Limits
from scheduler.announcing import Announcer
from scheduler.aws.addresses import topic_region
from scheduler.aws.clients import Clients, build
from scheduler.condition import Condition
from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.destinations import Guard
from scheduler.domain.errors import AccessDenied, ConfigError, Unavailable
from scheduler.domain.keys import address
from scheduler.domain.pace import MOST_IN_LINE, Pace
from scheduler.domain.routing import Routes
from scheduler.domain.skew import SkewBounds
from scheduler.engines.build import build_engines
from scheduler.guarded_http import GuardedHttp
from scheduler.held import HeldTasks
from scheduler.held_messages import HeldMessages
from scheduler.host import Host, Leaving, forever
from scheduler.intake import Intake
from scheduler.loops.announce import AnnounceLoop
from scheduler.loops.finish import DecodeLoop, DeleteLoop, Finished, StoreLoop
from scheduler.loops.keep import RENEWALS_PER_LEASE, ClaimKeeper, ProgressLoop, VisibilityKeeper
from scheduler.loops.lane import Lane, is_served
from scheduler.loops.prepare import ByteBudget, PrepareLoop
from scheduler.loops.preview import PreviewLoop
from scheduler.loops.receive import ReceiveLoop, Turns
from scheduler.loops.render import RenderLoop
from scheduler.notify.sns import SnsTopic
from scheduler.notify.webhook import WebhookSender
from scheduler.observe.health import HealthServer
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.shutdown import Shutdown
from scheduler.sqs_consumer import SqsQueue, discover
from scheduler.stop import StopSignal
from scheduler.stores.images import S3ImageStore
from scheduler.stores.inputs import build_inputs
from scheduler.stores.tasks import DynamoTaskStore, discover_key_name
from scheduler.supervisor_program import POLL_MARGIN_S
from scheduler.task_processor import TaskProcessor, Terms
from scheduler.threads import Threads, every
from scheduler.wire.webhook import key_of

log = structlog.get_logger()

STORE_THREADS = 6
"""Uploads beside each other: S3 answers in 50 to 100 ms, and the fastest engines finish 40 tasks a second."""
ANNOUNCE_THREADS = 6
"""The same for announcements: up to three calls each, as long as an upload together."""
WEBHOOK_THREADS = 8
"""Four receivers that keep silent hold up nobody else: each gets two of them."""
PREVIEW_PERIOD_S = 2.0
PROGRESS_PERIOD_S = 2.0
FACTS_PERIOD_S = 300.0
"""How often the queue is asked for its facts again, which shows how this host's clock stands."""
LAST_S = 5.0
"""So long before EC2 takes the instance the stop is over; with what it keeps for settling, nothing runs 20 s before."""
LOOP_DIED = 70
"""Exit code when a loop ended by an error: supervisord starts us again."""


class Scheduler:
    """One worker process. `run` returns its exit code."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inputs = build_inputs(settings)
        engines = build_engines(settings, self._inputs)
        self._clock = SystemClock()
        self._stop = StopSignal(self._clock)
        self._events: SimpleQueue[str | Leaving] = SimpleQueue()
        self._signals = 0
        self._metrics = Metrics()
        self._held = HeldTasks(self._clock)
        self._skew = SkewBounds()
        self._routes = Routes(engines)
        paces = {engine.runtimes: Pace() for engine in engines}
        self._lanes = [
            Lane(
                engine,
                self._held,
                self._clock,
                pace=paces[engine.runtimes],
                is_for=partial(self._routes.leads_to, engine),
            )
            for engine in engines
        ]
        self._intake = Intake()
        self._outages = Outages(stop=self._stop, metrics=self._metrics)
        self._condition = Condition(
            clock=self._clock,
            stop=self._stop,
            held=self._held,
            lanes=self._lanes,
            outages=self._outages,
            skew=self._skew,
        )
        self._host = Host(
            settings,
            os.environ,
            intake=self._intake,
            held=self._held,
            lanes=self._lanes,
            clock=self._clock,
            metrics=self._metrics,
            trouble=self._condition.unfit,
            on_leaving=self._told_to_leave,
        )
        self._condition.describe_host = self._host.describe
        self._threads = Threads(lambda name: self._events.put(f"died:{name}"))
        self._keepers_stop = threading.Event()
        self._fleet_stop = threading.Event()
        self._finished: SimpleQueue[Finished | None] = SimpleQueue()
        self._webhooks = self._webhook_sender()
        self._shutdown: Shutdown | None = None
        self._metrics.watch(lambda: Counter(held.state.name.lower() for held in self._held.all()))
        self._health = self._bind_health(settings.scheduler.health_host, settings.scheduler.health_port)

    def _bind_health(self, host: str, port: int) -> HealthServer:
        try:
            return HealthServer(host, port, report=self._condition.report, metrics=self._metrics.text)
        except OSError as error:
            said = f"[scheduler] health_host, health_port: cannot listen on {host}:{port}: {error.strerror or error}"
            raise ConfigError([f"{said}; name an address of this host and a free port, or 0 for any"]) from error

    @property
    def health_address(self) -> tuple[str, int]:
        """Where `/health` and `/metrics` answer."""
        return self._settings.scheduler.health_host, self._health.server_port

    def run(self) -> int:
        """Work until a signal or until a loop dies; return 0 or 70."""
        self._install_signals()
        threading.Thread(target=self._health.serve_forever, name="health", daemon=True).start()
        host, port = self.health_address
        log.info(
            "scheduler_starting", health=f"http://{host}:{port}/health", engines=[e.engine.name for e in self._lanes]
        )
        if not self._start():
            return 0
        log.info("scheduler_started", lease_s=self._condition.lease_s)
        event = self._events.get()
        if isinstance(event, Leaving):
            self._leave(event)
            while isinstance(event, Leaving):
                event = self._events.get()
        else:
            self._shut_down(event, grace_s=self._settings.scheduler.stop_grace_s)
        self._fleet_stop.set()
        self._host.resign()
        self._host.close()
        return LOOP_DIED if event.startswith("died:") else 0

    def _install_signals(self) -> None:
        def handle(number: int, _frame: FrameType | None) -> None:
            self._signals += 1
            if self._signals > 1:
                os._exit(128 + number)
            self._events.put(signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)

    # starting

    def _start(self) -> bool:
        """Start all loops once AWS has answered; False when told to stop before."""
        found = self._await_aws()
        if found is None:
            return False
        self._start_work(*found)
        self._start_fleet()
        return True

    def _await_aws(self) -> tuple[Clients, list[SqsQueue], str] | None:
        """Return clients, queues and the name of the table's key, however long AWS takes; None when told to stop."""
        aws, scheduler = self._settings.aws, self._settings.scheduler
        threads = STORE_THREADS + ANNOUNCE_THREADS + MOST_IN_LINE * len(self._lanes) + len(aws.sqs_queue_url) + 4
        pause_s = 1.0
        while True:
            try:
                # Built anew at each try: a client that found no credentials when it was built never looks again.
                clients = build(
                    aws.aws_region,
                    poll_interval_s=scheduler.poll_interval,
                    threads=threads,
                    topic_region=topic_region(self._settings.notify.sns_topic_arn),
                )
                queues, key_name = self._facts(clients)
                self._host.enter()
            except Unavailable as error:
                advice = "check the instance's role or the credentials" if isinstance(error, AccessDenied) else None
                log.warning("aws_unavailable", error=str(error), advice=advice)
                self._condition.aws_why = str(error)
            else:
                self._condition.aws_why = None
                return clients, queues, key_name
            try:
                self._events.get(timeout=pause_s)
            except Empty:
                pause_s = min(30.0, pause_s * 2)
            else:
                return None

    def _facts(self, clients: Clients) -> tuple[list[SqsQueue], str]:
        aws = self._settings.aws
        queues = []
        for index, name in enumerate(aws.sqs_queue_url):
            facts = discover(clients.sqs, name, clock=self._clock, skew=self._skew)
            if facts.dlq_url is None:
                log.warning("queue_without_dlq", queue=facts.url, refused_go_to=f"s3://{aws.s3_bucket}/rejected/")
            queues.append(
                SqsQueue(clients, facts, index=index, bucket=aws.s3_bucket, clock=self._clock, skew=self._skew)
            )
        return queues, discover_key_name(clients.dynamodb, aws.dynamodb_table)

    def _start_work(self, clients: Clients, queues: Sequence[SqsQueue], key_name: str) -> None:
        self._condition.lease_s = min(queue.lease_s for queue in queues)
        self._inputs.use(clients.s3)
        tasks = self._task_store(clients, key_name)
        announcer = self._announcer(clients, tasks)
        messages = HeldMessages(queues, held=self._held, clock=self._clock, metrics=self._metrics, stop=self._stop)
        previews = PreviewLoop(
            self._lanes,
            S3ImageStore(clients.s3, self._settings.aws.s3_bucket),
            default_prefix=self._settings.scheduler.default_prefix,
        )
        processor = self._task_processor(clients, messages, tasks, announcer, previews)
        budget = ByteBudget(self._settings.scheduler.memory_mb * 1024 * 1024)
        self._shutdown = self._way_back(messages, processor)
        self._start_keepers(queues, tasks)
        self._start_onlookers(clients, previews)
        self._start_finishing(announcer, messages, processor, budget)
        for lane in self._lanes:
            self._start_engine(lane, messages, processor, budget)
        self._start_receiving(queues, self._admission(messages, processor, tasks))

    def _task_store(self, clients: Clients, key_name: str) -> DynamoTaskStore:
        aws, scheduler = self._settings.aws, self._settings.scheduler
        return DynamoTaskStore(
            clients.dynamodb,
            clients.keeper_dynamodb,
            aws.dynamodb_table,
            key_name=key_name,
            clock=self._clock,
            address=self._address,
            worker=socket.gethostname(),
            instance_id=self._host.instance_id,
            max_runs=scheduler.max_runs,
            record_ttl_days=scheduler.record_ttl_days,
        )

    def _address(self, key: str) -> str:
        aws = self._settings.aws
        return address(key, bucket=aws.s3_bucket, cloudfront_domain=aws.cloudfront_domain)

    def _announcer(self, clients: Clients, tasks: DynamoTaskStore) -> Announcer:
        bucket, topic_arn = self._settings.aws.s3_bucket, self._settings.notify.sns_topic_arn
        return Announcer(
            tasks=tasks,
            images=S3ImageStore(clients.s3, bucket),
            bucket=bucket,
            address=self._address,
            topic=SnsTopic(clients.sns, topic_arn) if topic_arn else None,
            webhooks=self._webhooks,
            metrics=self._metrics,
        )

    def _webhook_sender(self) -> WebhookSender:
        secret = self._settings.notify.webhook_secret.get_secret_value()
        return WebhookSender(
            GuardedHttp(Guard(self._settings.inputs.allow_hosts)),
            key=key_of(secret) if secret else None,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _task_processor(
        self,
        clients: Clients,
        messages: HeldMessages,
        tasks: DynamoTaskStore,
        announcer: Announcer,
        previews: PreviewLoop,
    ) -> TaskProcessor:
        scheduler = self._settings.scheduler
        return TaskProcessor(
            terms=Terms(
                lease_s=self._condition.lease_s,
                max_runs=scheduler.max_runs,
                default_prefix=scheduler.default_prefix,
            ),
            held=self._held,
            messages=messages,
            outages=self._outages,
            tasks=tasks,
            images=S3ImageStore(clients.s3, self._settings.aws.s3_bucket),
            routes=self._routes,
            clock=self._clock,
            metrics=self._metrics,
            stop=self._stop,
            cost=self._host.cost_usd,
            announces=announcer.wants,
            hide_preview=previews.hide,
        )

    def _admission(self, messages: HeldMessages, processor: TaskProcessor, tasks: DynamoTaskStore) -> Admission:
        return Admission(
            processor=processor,
            messages=messages,
            held=self._held,
            tasks=tasks,
            routes=self._routes,
            inputs=self._inputs,
            clock=self._clock,
            stop=self._stop,
            limits=Limits(
                body_bytes=self._settings.inputs.max_bytes,
                held_bytes=self._settings.scheduler.memory_mb * 1024 * 1024,
            ),
            is_up=partial(is_served, self._lanes),
        )

    def _way_back(self, messages: HeldMessages, processor: TaskProcessor) -> Shutdown:
        return Shutdown(
            stop=self._stop,
            threads=self._threads,
            lanes=self._lanes,
            held=self._held,
            messages=messages,
            processor=processor,
            finished=self._finished,
            webhooks=self._webhooks,
            keepers_stop=self._keepers_stop,
            clock=self._clock,
            longest_poll_s=self._settings.scheduler.poll_interval + POLL_MARGIN_S,
        )

    def _start_keepers(self, queues: Sequence[SqsQueue], tasks: DynamoTaskStore) -> None:
        """Start what keeps the messages and the claims of everything held."""
        held, clock, metrics = self._held, self._clock, self._metrics
        period_s = self._condition.lease_s / RENEWALS_PER_LEASE
        visibility = VisibilityKeeper(queues, held=held, clock=clock, metrics=metrics)
        claims = ClaimKeeper(
            tasks, held=held, lanes=self._lanes, lease_s=self._condition.lease_s, clock=clock, metrics=metrics
        )
        for keeper in (visibility, claims):
            cycle = partial(keeper.cycle, due_after_s=period_s / 2)
            self._threads.start("keep", partial(every, period_s, cycle, stop=self._keepers_stop))

    def _start_onlookers(self, clients: Clients, previews: PreviewLoop) -> None:
        """Start what only looks on, and whose errors therefore cost nothing."""
        progress = ProgressLoop(self._lanes)
        self._start_looking("progress", PROGRESS_PERIOD_S, progress.cycle)
        self._threads.start("preview", partial(self._show, previews))
        self._start_looking("facts", FACTS_PERIOD_S, partial(self._look_again, clients))

    def _start_looking(self, name: str, period_s: float, cycle: Callable[[], None]) -> None:
        self._threads.start(name, partial(every, period_s, cycle, stop=self._keepers_stop, is_vital=False))

    def _show(self, previews: PreviewLoop) -> None:
        every(PREVIEW_PERIOD_S, previews.cycle, stop=self._keepers_stop, is_vital=False)
        previews.clear()

    def _start_finishing(
        self, announcer: Announcer, messages: HeldMessages, processor: TaskProcessor, budget: ByteBudget
    ) -> None:
        announce = AnnounceLoop(
            processor.announcements, announcer, messages=messages, outages=self._outages, stop=self._stop
        )
        self._threads.start("delete", DeleteLoop(messages, self._outages, self._stop).run)
        for _ in range(WEBHOOK_THREADS):
            self._threads.start("webhook", self._webhooks.run)
        for _ in range(ANNOUNCE_THREADS):
            self._threads.start("announce", announce.run)
        for _ in range(STORE_THREADS):
            self._threads.start("store", StoreLoop(self._finished, processor, budget).run)

    def _start_engine(self, lane: Lane, messages: HeldMessages, processor: TaskProcessor, budget: ByteBudget) -> None:
        """Start the loops of one engine: what decodes its answers, what calls it, what prepares its next tasks."""
        held, clock, stop = self._held, self._clock, self._stop
        render = RenderLoop(
            lane,
            processor=processor,
            messages=messages,
            outages=self._outages,
            held=held,
            clock=clock,
            metrics=self._metrics,
            stop=stop,
            lanes=self._lanes,
            deadline_s=self._settings.scheduler.task_deadline_s,
            lease_s=self._condition.lease_s,
        )
        prepare = PrepareLoop(
            lane, processor=processor, messages=messages, held=held, budget=budget, clock=clock, stop=stop
        )
        self._threads.start("decode", DecodeLoop(render.outcomes, self._finished, held).run)
        self._threads.start("engine", render.run)
        for _ in range(MOST_IN_LINE):
            self._threads.start("prepare", prepare.run)

    def _start_receiving(self, queues: Sequence[SqsQueue], admission: Admission) -> None:
        scheduler = self._settings.scheduler
        turns = Turns(len(queues), self._clock)
        self._condition.receivers = receivers = [
            ReceiveLoop(
                queue,
                index=queue.index,
                turns=turns,
                lanes=self._lanes,
                admission=admission,
                outages=self._outages,
                held=self._held,
                intake=self._intake,
                clock=self._clock,
                metrics=self._metrics,
                stop=self._stop,
                skewed=self._condition.skewed,
                most=scheduler.max_tasks_per_poll,
                wait_s=scheduler.poll_interval,
            )
            for queue in queues
        ]
        for receiver in receivers:
            self._threads.start("receive", receiver.run)

    def _start_fleet(self) -> None:
        """Start what makes this host one of a fleet; none of it may cost a render."""
        host = self._host
        loops = {"watch": host.watch, "belong": host.belong, "lead": host.lead, "price": host.price}
        for name, loop in loops.items():
            self._threads.start("fleet", partial(forever, loop, name=name, stopped=self._fleet_stop.wait))

    def _look_again(self, clients: Clients) -> None:
        try:
            discover(clients.sqs, self._settings.aws.sqs_queue_url[0], clock=self._clock, skew=self._skew)
        except Unavailable as error:
            log.warning("aws_unavailable", error=str(error))

    # stopping

    def _told_to_leave(self, leaving: Leaving) -> None:
        """Have the main thread stop the work, or, where it is at that, let it know that there is less time."""
        if self._stop.is_set():
            self._stop.hasten(self._grace_s(leaving))
            if self._shutdown is not None:
                self._shutdown.interrupt_what_does_not_fit()
        else:
            self._events.put(leaving)

    def _grace_s(self, leaving: Leaving) -> float:
        return max(1.0, leaving.deadline_s - self._clock.now() - LAST_S)

    def _leave(self, leaving: Leaving) -> None:
        """Stop working before EC2 takes the instance, and wait for that: a restart would only begin work anew."""
        self._shut_down(leaving.why, grace_s=self._grace_s(leaving), is_last=True)
        self._host.left()
        log.warning("waiting_for_the_end", why=leaving.why)

    def _shut_down(self, why: str, *, grace_s: float, is_last: bool = False) -> None:
        self._stop.set(grace_s)
        log.info("scheduler_stopping", why=why, held=len(self._held.all()))
        if self._shutdown is not None:
            self._shutdown.run(is_last=is_last)
