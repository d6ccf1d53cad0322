"""The stages of one task, over ports only: claim, finish, fail, give back, lose.

The order at the end is what keeps the promises: pictures, record, announcement, delete; and on the way back:
release, then the message. It knows no AWS and no HTTP; the loops call it, each from its own thread.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from queue import SimpleQueue
from typing import Any

import structlog

from scheduler.domain.claiming import Refusal, Refused, wait_elsewhere_s
from scheduler.domain.ends import CANCELLED, End, image_item, read_end
from scheduler.domain.errors import (
    Counts,
    Interrupted,
    LeaseLost,
    Rejected,
    SchedulerError,
    Transient,
    Unavailable,
    Unstorable,
)
from scheduler.domain.keys import image_key, images_key
from scheduler.domain.ports import Clock, ImageStore, Output, TaskStore
from scheduler.domain.retry import Fail, backoff_s, decide
from scheduler.domain.routing import Routes
from scheduler.domain.task import Claim, Failure, Message, Result, Task, Timings
from scheduler.held import Held, HeldTasks, State
from scheduler.held_messages import HeldMessages
from scheduler.observe.metrics import Metrics
from scheduler.outages import Outages
from scheduler.stop import StopSignal

log = structlog.get_logger()

MISSING_RECORD_S = 300.0
"""A reference whose record is absent may just be early; after this long it is refused."""
MOST_WARNINGS = 10
MOST_WARNING_CHARS = 500
MANY_IMAGES = 100
"""With fewer it is not their list that makes a record too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings that the stages of a task follow."""

    lease_s: int
    max_runs: int
    default_prefix: str


class TaskProcessor:
    """What may be done with one task, whoever does it. Safe for threads: a held task is in one loop at a time."""

    def __init__(
        self,
        *,
        terms: Terms,
        held: HeldTasks,
        messages: HeldMessages,
        outages: Outages,
        tasks: TaskStore,
        images: ImageStore,
        routes: Routes,
        clock: Clock,
        metrics: Metrics,
        stop: StopSignal,
        cost: Callable[[float], Decimal | None],
        announces: Callable[[Task], bool],
        hide_preview: Callable[[Task], None],
    ) -> None:
        """`cost` gives what so many seconds of an engine cost in US dollars, None where no price is known; `announces`
        tells whether anybody is told of a task's end; `hide_preview` takes away what a worker that died has shown.
        """
        self._terms = terms
        self._cost = cost
        self._held = held
        self._messages = messages
        self._outages = outages
        self._tasks = tasks
        self._images = images
        self._routes = routes
        self._announces = announces
        self._hide_preview = hide_preview
        self._clock = clock
        self._metrics = metrics
        self._stop = stop
        self.announcements: SimpleQueue[tuple[Held, End] | None] = SimpleQueue()

    def require_runtime(self, held: Held) -> None:
        """Raise Rejected for a task that nobody could run, however often it was delivered: that is its end."""
        if self._routes.runtime(held.task) is None:
            wanted = held.task.runtime or held.task.task_type.value
            raise Rejected(
                f"no worker that could run {wanted} took it in {held.receive_count} deliveries",
                field="runtime" if held.task.runtime else "task_type",
            )

    def close_bad_record(self, task_id: str, record: Mapping[str, Any], error: Rejected) -> None:
        """Tell the client that polls the record; the refused message goes to a person all the same."""
        failure = Failure(kind=error.kind, message=error.message, field=error.field)
        try:
            if self._tasks.close_unclaimed(task_id, record, "failed", failure):
                self._ended(task_id, "failed", error=error.message)
        except (Unavailable, Unstorable) as why:
            log.warning("record_not_closed", task_id=task_id, error=why.message)

    # claiming

    def claim(self, held: Held) -> bool:
        """Claim a task in PREPARING; when that is refused, see to its messages and return False."""
        owner = secrets.token_hex(8)
        # The newest: sent after a failure, it asks for another run, whatever older copies are held with it.
        message = max(self._held.receipts(held), key=lambda m: m.sent_at_s)
        sent_s = self._clock.monotonic()

        def claim() -> Any:
            nonlocal sent_s
            sent_s = self._clock.monotonic()
            return self._tasks.claim(held.task, message, owner=owner, lease_s=self._terms.lease_s)

        try:
            answer = self._outages.insist(held, claim)
        except Unavailable:  # we stop, and the claim may or may not hold: the lease settles it
            self._messages.give_back(held, 0.0, reason="stop")
            return False
        except Unstorable as error:
            self._messages.refuse_held(held, error.message)
            return False
        if isinstance(answer, Refused):
            self._refused(held, answer, message)
            return False
        held.claim, held.renewed_s, held.job_id = answer, sent_s, None
        if held.task.format.is_eks:
            held.ran_for = message.identity
        return True

    def note_job(self, held: Held) -> None:
        """Have the record tell at once which job of the engine is at the task;
        when AWS fails, the next renewal does.
        """
        if held.claim is None:
            return
        try:
            self._tasks.renew(held.claim, lease_s=self._terms.lease_s, progress=held.progress, job_id=held.job_id)
        except LeaseLost:
            held.is_lost = True
        except (Unavailable, Unstorable) as error:
            log.warning("job_not_noted", task_id=held.task.task_id, job_id=held.job_id, error=str(error))

    def _refused(self, held: Held, refused: Refused, message: Message) -> None:
        task_id, record = held.task.task_id, refused.record or {}
        log.info("claim_refused", task_id=task_id, reason=refused.reason.value)
        match refused.reason:
            case Refusal.DUPLICATE:
                held.ran_for = message.identity if held.task.format.is_eks else None
                self._settle(held, _untold(held.task, record, message), failed_at_s=_failed_at_s(record))
            case Refusal.ELSEWHERE:
                wait_s = wait_elsewhere_s(
                    record, now=self._clock.now(), lease_s=self._terms.lease_s, receive_count=held.receive_count
                )
                self._messages.give_back(held, wait_s, reason="elsewhere")
            case Refusal.CONFLICT:
                self._messages.refuse_held(held, f"task_id {task_id} already belongs to another request")
            case Refusal.MISSING if self._clock.now() - message.sent_at_s > MISSING_RECORD_S:
                self._messages.refuse_held(held, f"there is no record of task {task_id} in the table")
            case Refusal.CANCELLED:
                self._close(held, record, "cancelled", None)
            case Refusal.EXHAUSTED:
                said = f"it was started {record.get('runs')} times and no worker lived to tell how it ended"
                self._close(held, record, "failed", Failure(kind="exhausted", message=said))
            case _:
                self._messages.give_back(held, backoff_s(held.receive_count), reason=refused.reason.value)

    def _close(self, held: Held, record: Mapping[str, Any], status: str, failure: Failure | None) -> None:
        task_id, began_at_s = held.task.task_id, self._clock.now()
        try:
            closed = self._outages.insist(held, lambda: self._tasks.close_unclaimed(task_id, record, status, failure))
        except Unavailable:
            closed = False
        except Unstorable as error:
            self._messages.refuse_held(held, error.message)
            return
        if closed:
            held.ran_for = record.get("message_id") if held.task.format.is_eks else None
            self._ended(task_id, status, error=failure.message if failure else None)
            end = read_end(held.task, {**record, "status": "cancelled", "finished_at": began_at_s})
            if end is not None:
                end = replace(end, status=status, outcome=failure or CANCELLED)
            self._settle(held, end, failed_at_s=began_at_s if failure else None)
        else:
            self._messages.give_back(held, backoff_s(1), reason="changed")

    # ends

    def finish(self, held: Held, output: Output) -> None:
        """Store the pictures, write the good end, hand the task on to be announced and its messages deleted."""
        claim, task = held.claim, held.task
        if claim is None:
            raise RuntimeError(f"task {task.task_id} finished without a claim")
        keys = [
            image_key(
                task,
                default_prefix=self._terms.default_prefix,
                run_no=claim.run_no,
                index=n,
                extension=image.extension,
            )
            for n, image in enumerate(output.images, start=1)
        ]
        try:
            stored = tuple(
                self._outages.insist(held, partial(self._images.put, key, image), left_s=self._stop.work_left_s)
                for key, image in zip(keys, output.images, strict=True)
            )
            result = Result(
                images=stored,
                timings=Timings(
                    queued_ms=held.queued_ms,
                    prepare_ms=held.prepare_ms,
                    generate_ms=held.generate_ms,
                    store_ms=round((self._clock.monotonic() - held.rendered_s) * 1000),
                ),
                checkpoint=output.checkpoint,
                sampler=output.sampler,
                warnings=_few(output.warnings),
                result_s3_uri=next(iter(output.result_uris), None),
                job_id=held.job_id,
                gpu_cost_usd=self._cost(held.generate_ms / 1000),
            )
            self._complete(held, claim, result)
        except LeaseLost:
            self._lose(held)
        except Unstorable as error:
            self.end(held, error)
        except Unavailable:
            self.return_claimed(held, reason="stop")
        else:
            self._metrics.store_s.observe(self._clock.monotonic() - held.rendered_s)
            if result.gpu_cost_usd is not None:
                self._metrics.gpu_cost_usd.inc(float(result.gpu_cost_usd))
            self._ended(task.task_id, "completed", images=len(stored), **_timing_fields(result.timings))
            self._settle(held, self._end(claim, task, "completed", result))

    def _complete(self, held: Held, claim: Claim, result: Result) -> None:
        """Write the good end. With too many images for a record their list lies beside them, and it points there."""
        task = held.task
        try:
            self._outages.insist(held, lambda: self._tasks.complete(claim, task, result))
        except Unstorable:
            if len(result.images) < MANY_IMAGES:
                raise
            key = images_key(task, default_prefix=self._terms.default_prefix, run_no=claim.run_no)
            listed = {"images": [image_item(image) for image in result.images]}
            self._outages.insist(held, lambda: self._images.put_json(key, listed), left_s=self._stop.work_left_s)
            shorter = replace(result, images_key=key)
            self._outages.insist(held, lambda: self._tasks.complete(claim, task, shorter))

    def end(self, held: Held, error: SchedulerError) -> None:
        """See a claimed task that did not succeed to where `error` sends it: failed, cancelled, or back."""
        claim, task = held.claim, held.task
        if claim is None:
            raise RuntimeError(f"task {task.task_id} ended without a claim")
        try:
            if isinstance(error, Interrupted) and held.is_cancelled:
                self._outages.insist(held, lambda: self._tasks.cancelled(claim, task))
                self._ended(task.task_id, "cancelled")
                self._settle(held, self._end(claim, task, "cancelled", CANCELLED))
                return
            if isinstance(error, Interrupted):
                self._back(held, 0.0, Counts.NOTHING, reason="stop")
                return
            known = claim
            if isinstance(error, Transient) and error.counts is Counts.TRY:
                known = self._outages.insist(held, lambda: self._with_tries(claim))
            decision = decide(
                error,
                known,
                max_runs=self._terms.max_runs,
                now=self._clock.now(),
                receive_count=held.receive_count,
            )
            if isinstance(decision, Fail):
                failure, began_at_s = decision.failure, self._clock.now()
                self._outages.insist(held, lambda: self._tasks.fail(claim, task, failure))
                self._ended(task.task_id, "failed", kind=failure.kind, error=failure.message, field=failure.field)
                self._settle(held, self._end(claim, task, "failed", failure), failed_at_s=began_at_s)
            else:
                kind = getattr(error, "kind", "error")
                log.warning("task_will_be_retried", task_id=task.task_id, kind=kind, error=str(error), runs=claim.runs)
                self._back(held, decision.delay_s, decision.counts, reason=kind)
        except LeaseLost:
            self._lose(held)
        except Unstorable as unstorable:
            self._messages.refuse_held(held, unstorable.message)
        except Unavailable:
            self._abandon(held)

    def surprised(self, held: Held) -> None:
        """See to a task in whose hands our own code failed: it counts as a run, so that it cannot go on for ever."""
        if held.claim is None:
            self._messages.give_back(held, backoff_s(held.receive_count), reason="surprise")
        else:
            self.end(held, Transient("the worker failed on this task: see its log", counts=Counts.RUN))

    def _with_tries(self, claim: Claim) -> Claim:
        """Return the claim with what the record says of earlier tries; only this kind of failure needs to know."""
        record = self._tasks.read([claim.task_id]).get(claim.task_id, {})
        since = record.get("first_try_at")
        return replace(claim, tries=int(record.get("tries", 0)), first_try_at_s=None if since is None else float(since))

    def unclaim(self, held: Held) -> None:
        """Give a claim up unspent and let the task wait here; its engine went away before it was posted."""
        claim = held.claim
        try:
            if claim is not None:
                self._outages.insist(held, lambda: self._tasks.release(claim, counts=Counts.NOTHING))
        except LeaseLost:
            self._lose(held)
        except Unavailable:
            self._abandon(held)
        else:
            held.claim = held.run = None
            held.is_lost = False  # a renewal that came after the release was told so
            self._held.move(held, State.WAITING)

    def return_claimed(self, held: Held, *, reason: str) -> None:
        """Give back a task that was claimed and never posted: its run is refunded."""
        try:
            self._back(
                held, 0.0 if self._stop.is_set() else backoff_s(held.receive_count), Counts.NOTHING, reason=reason
            )
        except LeaseLost:
            self._lose(held)
        except Unavailable:
            self._abandon(held)

    def _back(self, held: Held, delay_s: float, counts: Counts, *, reason: str) -> None:
        claim = held.claim
        if claim is not None:
            self._outages.insist(held, lambda: self._tasks.release(claim, counts=counts))
            held.claim = None
        self._messages.give_back(held, delay_s, reason=reason)

    def _settle(self, held: Held, end: End | None, *, failed_at_s: float | None = None) -> None:
        """Hand a task with its end written on to be announced, when somebody wants to know, else to the deleter.

        `end` is None when it was announced already. `failed_at_s` (epoch seconds, not after the record's
        `finished_at`) is when it failed, if it did: a message sent after that asks for another run, and goes back
        instead.
        """
        held.failed_at_s = failed_at_s
        if held.task.preview and (held.claim is None or held.claim.attempt > 1):
            self._hide_preview(held.task)
        if end is None or not self._announces(held.task):
            self._messages.delete(held)
            return
        self._held.move(held, State.ANNOUNCING)
        self.announcements.put((held, end))

    def _end(self, claim: Claim, task: Task, status: str, outcome: Result | Failure) -> End:
        return End(
            task=task,
            status=status,
            outcome=outcome,
            run_no=claim.run_no,
            attempt=claim.attempt,
            at_s=self._clock.now(),
        )

    def _lose(self, held: Held) -> None:
        self._metrics.leases_lost.inc()
        log.warning("lease_lost", task_id=held.task.task_id)
        self._held.drop(held)

    def _abandon(self, held: Held) -> None:
        """We must exit and AWS does not answer: say so; the lease and the visibility will run out by themselves."""
        log.error("task_abandoned", task_id=held.task.task_id, state=held.state.name, trouble=self._outages.trouble)
        self._held.drop(held)

    def _ended(self, task_id: str, outcome: str, **fields: object) -> None:
        self._metrics.tasks.labels(outcome).inc()
        with self._held.lock:
            self._held.tally.finished += 1
        given = {name: value for name, value in fields.items() if value is not None}
        log.info("task_ended", task_id=task_id, outcome=outcome, **given)


def _untold(task: Task, record: Mapping[str, Any], message: Message) -> End | None:
    """Return the end that a record shows and that nobody noted as announced; None also for one of another run."""
    if "announced_at" in record or (
        task.format.is_eks and record.get("message_id", message.identity) != message.identity
    ):
        return None
    return read_end(task, record)


def _failed_at_s(record: Mapping[str, Any]) -> float | None:
    return float(record.get("finished_at", 0)) if record.get("status") == "failed" else None


def _few(warnings: Sequence[str]) -> tuple[str, ...]:
    """Return what a record can hold of warnings, of which each of thousands of pictures may have one."""
    kept = tuple(warning[:MOST_WARNING_CHARS] for warning in warnings[:MOST_WARNINGS])
    left = len(warnings) - len(kept)
    return (*kept, f"and {left} more") if left else kept


def _timing_fields(timings: Timings) -> dict[str, object]:
    return {
        "queued_ms": timings.queued_ms,
        "prepare_ms": timings.prepare_ms,
        "generate_ms": timings.generate_ms,
        "store_ms": timings.store_ms,
    }
