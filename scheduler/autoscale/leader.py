"""The loop that every daemon runs: one of them leads, looks, decides, writes down, and only then acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from scheduler.autoscale import census, plan, survey
from scheduler.autoscale.book import ACT_WITHIN_S, BUSY_TICK_S, LEASE_S, ONCE_LEASE_S, TICK_S, Book
from scheduler.autoscale.fleets.port import Condition, Fleet, FleetView
from scheduler.autoscale.ports import Backlog, FleetState
from scheduler.autoscale.snapshot import Decision, Policy, Snapshot
from scheduler.autoscale.steps import Facts, Plan
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The [autoscaling] section as the leader uses it; `settings_no` is its published version."""

    policy: Policy
    bounds: survey.Bounds
    settings_no: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one tick saw beside what the policy is told; `is_blind` when not everything could be read."""

    is_blind: bool = True
    is_modifying: bool = False
    """Whether a change of the fleet's target was under way."""
    drains_s: tuple[float, ...] = ()
    """How long those took to consent who did so since the last look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one tick came to: who leads, the book as it stands, and what was, or would be, done."""

    leads: bool
    book: Book | None
    plan: Plan | None = None
    look: Look = Look()
    failed_steps: tuple[str, ...] = ()
    """Steps of the plan that were not carried out."""

    def to_json(self) -> dict[str, Any]:
        """Return who leads, what is wanted and why, and the target that was set, in JSON's types."""
        book = self.book
        return {
            "leads": self.leads,
            "leader": book.leader if book else None,
            "wanted": book.capacity if book else None,
            "reasons": list(book.reasons) if book else [],
            "hold": book.hold if book else "",
            "target": self.plan.target if self.plan else None,
        }

    @property
    def next_s(self) -> float:
        """In how many seconds to look again: sooner while a change is under way."""
        plan = self.plan
        if plan is None or not self.leads:
            return TICK_S
        is_draining = plan.book.snapshot is not None and plan.book.snapshot.draining > 0
        is_moving = plan.writes or plan.ends or plan.target is not None or is_draining
        return BUSY_TICK_S if is_moving else TICK_S


class Leader:
    """One contender for the lead. Not safe for threads: one loop calls `tick`.

    What decides stands in the decision item, so that it makes no difference who leads, or how often that changes.
    """

    def __init__(
        self,
        *,
        name: str,
        state: FleetState,
        fleet: Fleet,
        backlog: Backlog,
        terms: Callable[[], Terms],
        clock: Clock,
        deadline_s: float,
        looks_once: bool = False,
        acts: bool = True,
    ) -> None:
        self._name = name
        self._state = state
        self._fleet = fleet
        self._backlog = backlog
        self._terms = terms
        self._clock = clock
        self._deadline_s = deadline_s
        self._looks_once = looks_once
        self._acts = acts
        self._version_seen: tuple[int, float] | None = None
        """The book's version and since when, on this clock, it has stood."""
        self._wrote: int | None = None
        self._growth = survey.Growth()
        self._drains = survey.Drains()

    def tick(self, *, sent: int = 0) -> Outcome:
        """Look, and if the lead is ours decide and act. `sent` counts messages sent a moment ago.

        Raises Unavailable when the decision item cannot be read or written; nothing was done then.
        """
        book = self._state.book()
        if book is not None and self._acts and not self._may_lead(book):
            return Outcome(leads=False, book=book)
        if self._wrote is None:  # others may have counted meanwhile what we would count again
            self._growth, self._drains = survey.Growth(), survey.Drains()
        seen = None if book is None else book.version
        before = book or Book(began_s=self._clock.now())
        drawn, look = self._draw(before, sent=sent)
        drawn.book = replace(drawn.book, version=before.version + 1, leader=self._name, written_s=self._clock.now())
        if not self._acts:
            return Outcome(leads=True, book=drawn.book, plan=drawn, look=look)
        sent_s = self._clock.monotonic()
        if not self._state.write_book(drawn.book, seen=seen):
            self._wrote = None
            return Outcome(leads=False, book=before)
        if self._wrote is None:
            log.info("leading_the_fleet", after=before.leader, version=drawn.book.version)
        self._wrote = drawn.book.version
        failed = tuple(self._act(drawn, sent_s))
        return Outcome(leads=True, book=drawn.book, plan=drawn, look=look, failed_steps=failed)

    def resign(self) -> None:
        """Let the next one lead without waiting for our lease to run out. Raises Unavailable."""
        if self._wrote is None:
            return
        book = self._state.book()
        if book is not None and book.version == self._wrote:
            self._state.write_book(replace(book, version=book.version + 1, leader=""), seen=book.version)
        self._wrote = None

    def _may_lead(self, book: Book) -> bool:
        if book.leader == "" or book.version == self._wrote:
            return True
        self._wrote = None
        now_s = self._clock.monotonic()
        if self._version_seen is None or self._version_seen[0] != book.version:
            self._version_seen = (book.version, now_s)
        if self._looks_once:
            return abs(self._clock.now() - book.written_s) >= ONCE_LEASE_S
        return now_s - self._version_seen[1] >= LEASE_S

    # deciding

    def _draw(self, before: Book, *, sent: int) -> tuple[Plan, Look]:
        """Return what to do, with the book that says why; a hold when something cannot be read."""
        now_s = self._clock.now()
        before = before.not_ahead_of(now_s)
        try:
            counts = self._backlog.counts()
            registry = self._state.registry()
            view = self._fleet.describe()
            pause = self._state.pause()
            terms = self._terms()
        except Unavailable as error:
            said = f"not everything could be read: {error.message}"
            return Plan(book=replace(before, read_s=0.0, hold=said, reasons=())), Look()
        workers = registry.workers
        drains_s = self._drains.ended(workers)
        look = Look(is_blind=False, is_modifying=view.condition is Condition.MODIFYING, drains_s=drains_s)
        beats = survey.listened(before, workers, now_s=now_s)
        silent_s = {instance_id: beat.silent_s for instance_id, beat in beats.items()}
        book = replace(before, hold="", beats=beats, read_s=now_s)
        book = self._growth.learn(book, workers, view, unreadable=registry.unreadable)
        found = census.take(view, workers, silent_s, unreadable=registry.unreadable, began_s=book.began_s, now_s=now_s)
        bounds = terms.bounds.within(view)
        snapshot = survey.snapshot(found, view, counts, book, bounds, now_s=now_s, sent=sent)
        decision = _decide(terms.policy, snapshot, book)
        book = replace(
            book,
            policy=terms.policy.name,
            policy_state=decision.state,
            capacity=snapshot.within_bounds(decision.capacity),
            reasons=decision.reasons,
            snapshot=snapshot,
            settings_no=terms.settings_no,
        )
        wanted = book.capacity
        if pause is not None and now_s < pause.until_s:
            book = replace(book, hold=pause.told)
            wanted = None
        elif pause is not None and pause.until_s > book.buried_s:
            book = replace(book, unreported=0, unfit=0)
        return plan.make(self._facts(book, view, found, silent_s, wanted=wanted, now_s=now_s)), look

    def _facts(
        self,
        book: Book,
        view: FleetView,
        found: census.Census,
        silent_s: Mapping[str, float],
        *,
        wanted: int | None,
        now_s: float,
    ) -> Facts:
        return Facts(
            now_s=now_s,
            view=view,
            census=found,
            book=book,
            wanted=wanted,
            silent_s=silent_s,
            leader=self._name,
            deadline_s=self._deadline_s,
            settings_no=book.settings_no,
            lowers_target=self._fleet.lowers_target,
            replaces=self._fleet.replaces,
        )

    # acting

    def _set_target(self, target: int, book: Book) -> None:
        self._fleet.set_target(target)
        was = book.snapshot.target if book.snapshot else None
        log.info("target_set", target=target, was=was, reasons=book.reasons)

    def _act(self, drawn: Plan, sent_s: float) -> Iterator[str]:
        """Do what was written down, as long as the lease surely holds; yield the names of the steps that failed.

        What fails is met again at the next tick.
        """
        for event in drawn.events:
            (log.error if event.is_alarm else log.info)(event.name, **event.fields)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("write", partial(self._state.change, change)) for change in drawn.writes
        ]
        if drawn.target is not None and drawn.book.snapshot and drawn.target != drawn.book.snapshot.target:
            steps.append(("target", partial(self._set_target, drawn.target, drawn.book)))
        for is_replaced in (False, True):
            ids = [end.instance_id for end in drawn.ends if end.replace is is_replaced]
            if ids:
                steps.append(("end", partial(self._fleet.end, ids, replace=is_replaced)))
        steps.append(("keep", partial(self._state.keep, drawn.book)))
        for name, step in steps:
            if self._clock.monotonic() - sent_s > ACT_WITHIN_S:
                log.warning("lead_too_slow", left_undone=name)
                yield name
                return
            try:
                step()
            except Unavailable as error:
                log.warning("fleet_step_failed", step=name, error=error.message)
                yield name


def _decide(policy: Policy, snapshot: Snapshot, book: Book) -> Decision:
    """Return the policy's decision; what was remembered and makes no sense to it is forgotten."""
    remembered = book.policy_state if book.policy == policy.name else {}
    try:
        return policy.decide(snapshot, remembered)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        if not remembered:
            raise
        log.exception("policy_state_odd", policy=policy.name)
        return policy.decide(snapshot, {})
