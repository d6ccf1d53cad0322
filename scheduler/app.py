"""The composition root: settings become adapters, services and threads, in the order of the start.

Health first, so that waiting can be seen; then AWS's facts; then the loops, as `startup` says. `shutdown` has the way
back.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType

import structlog

from scheduler.announcing import Announcer
from scheduler.aws.clients import Clients
from scheduler.condition import Condition
from scheduler.config import Settings
from scheduler.connection import Connection, connect, look_again
from scheduler.domain.clock import SystemClock
from scheduler.domain.destinations import Guard
from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.domain.pace import Pace
from scheduler.domain.routing import Routes
from scheduler.domain.skew import SkewBounds
from scheduler.engines.build import build_engines
from scheduler.guarded_http import GuardedHttp
from scheduler.held import HeldTasks
from scheduler.host.departure import Leaving
from scheduler.host.host import Host, forever
from scheduler.intake import Intake
from scheduler.loops.lane import Lane
from scheduler.notify.sns import SnsTopic
from scheduler.notify.webhook import WebhookSender
from scheduler.observe.advice import advice_for
from scheduler.observe.health import HealthServer
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.shutdown import Shutdown
from scheduler.startup import Startup, threads_that_call_aws
from scheduler.stop import StopSignal
from scheduler.stores.build import address_of, build_images, build_tasks
from scheduler.stores.images import S3ImageStore
from scheduler.stores.inputs import build_inputs
from scheduler.stores.tasks import DynamoTaskStore
from scheduler.threads import Threads
from scheduler.wire.webhook import key_of

log = structlog.get_logger()

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
        self._fleet_stop = threading.Event()
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
        connection = self._await_aws()
        if connection is None:
            return False
        self._shutdown = self._startup(connection).run()
        self._start_fleet()
        return True

    def _await_aws(self) -> Connection | None:
        """Return what AWS answers, however long that takes; None when told to stop."""
        queues = len(self._settings.aws.sqs_queue_url)
        threads = threads_that_call_aws(engines=len(self._lanes), queues=queues)
        pause_s = 1.0
        while True:
            try:
                connection = connect(self._settings, threads=threads, clock=self._clock, skew=self._skew)
                self._host.enter()
            except Unavailable as error:
                log.warning("aws_unavailable", error=str(error), advice=advice_for(error))
                self._condition.aws_why = str(error)
            else:
                self._condition.aws_why = None
                return connection
            try:
                self._events.get(timeout=pause_s)
            except Empty:
                pause_s = min(30.0, pause_s * 2)
            else:
                return None

    def _startup(self, connection: Connection) -> Startup:
        settings, clients = self._settings, connection.clients
        self._condition.lease_s = min(queue.lease_s for queue in connection.queues)
        self._inputs.use(clients.s3)
        tasks = build_tasks(
            settings, clients, key_name=connection.key_name, clock=self._clock, instance_id=self._host.instance_id
        )
        images = build_images(settings, clients)
        return Startup(
            settings=settings,
            clock=self._clock,
            stop=self._stop,
            metrics=self._metrics,
            threads=self._threads,
            held=self._held,
            lanes=self._lanes,
            routes=self._routes,
            intake=self._intake,
            outages=self._outages,
            condition=self._condition,
            queues=connection.queues,
            tasks=tasks,
            images=images,
            preview_store=images,
            inputs=self._inputs,
            announcer=self._announcer(clients, tasks, images),
            webhooks=self._webhooks,
            cost=self._host.cost_usd,
            look_again=partial(look_again, connection, settings, clock=self._clock, skew=self._skew),
        )

    def _announcer(self, clients: Clients, tasks: DynamoTaskStore, images: S3ImageStore) -> Announcer:
        topic_arn = self._settings.notify.sns_topic_arn
        return Announcer(
            tasks=tasks,
            images=images,
            bucket=self._settings.aws.s3_bucket,
            address=address_of(self._settings),
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

    def _start_fleet(self) -> None:
        """Start what makes this host one of a fleet; none of it may cost a render."""
        host = self._host
        loops = {"watch": host.watch, "belong": host.belong, "lead": host.lead, "price": host.price}
        for name, loop in loops.items():
            self._threads.start("fleet", partial(forever, loop, name=name, stopped=self._fleet_stop.wait))

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
