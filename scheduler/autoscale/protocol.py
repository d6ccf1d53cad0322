"""The transitions of a worker's record, on which it rests that no running task is ever killed; pure.

EC2's calls cannot be fenced: a leader that slept may wake and send one at any time. So nothing ends a worker but its
own consent, written into its record, one way::

    ACTIVE ──leader──▶ DRAIN ──worker──▶ DRAINED ──leader──▶ TERM ──▶ GONE
       ▲                 │                  │
       └──── worker, recalled by the leader ┘

Each step is one conditional write that names the state, the boot and the drain it was decided on. `boot_id` is in it
because a stopped instance keeps its id when it starts again; `drain_no` because a write that was delayed in the network
must not take effect in a later drain. A worker writes DRAINED only when its outstanding long poll has come back and it
holds nothing. The one way without consent is `bury`, for a worker whose heartbeat has not changed for longer than any
task may run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

NEVER_BOOTED = ""
"""The `boot_id` of a record that the leader wrote for an instance that never reported."""


class State(StrEnum):
    """Where a worker is on its way out."""

    ACTIVE = "active"
    DRAIN = "drain"
    """Asked to go: it receives nothing more and finishes what it has."""
    DRAINED = "drained"
    """It holds nothing, its last poll has come back: it may be ended."""
    TERM = "term"
    """It ends itself now; there is no way back."""
    GONE = "gone"
    """EC2 shows it ended."""


LEAVING = frozenset({State.DRAIN, State.DRAINED})
FINAL = frozenset({State.TERM, State.GONE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a worker tells with each heartbeat. `received`, `finished` and `busy_s` grow from the worker's start."""

    running: int = 0
    waiting: int = 0
    waiting_s: float | None = None
    """GPU seconds that the waiting ones take, by what tasks of their class took; None when that is not known."""
    received: int = 0
    """Tasks received for the first time."""
    finished: int = 0
    busy_s: float = 0.0
    idle_s: float = 0.0
    """How long it has held nothing."""
    waited_s: float = 0.0
    """How long the task received last had waited in its queue."""
    ready_s: float | None = None
    """When an engine could first render, epoch seconds; None while none could."""
    settings_no: int = 0
    """The version of [autoscaling] that stands in its own conf.ini; 0 when it is another."""
    leave_first: str = ""
    """Why it should be the first to go, such as a rebalance recommendation; empty when there is no reason."""
    deadline_s: float = 0.0
    """How long a task may run here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker's record."""

    instance_id: str
    boot_id: str
    state: State
    drain_no: int = 0
    """How often it was asked to go; never falls."""
    beat: int = 0
    """Heartbeats of this boot."""
    recall: int = 0
    """The drain that the leader takes back; 0 when none."""
    replace: bool = False
    """Whether the fleet's target stays when it goes, so that another comes in its place."""
    why: str = ""
    """Why it is on its way out."""
    firm: bool = False
    """Whether the leader may not take the drain back: the worker itself, or a person, wants it gone."""
    dead: bool = False
    """Whether it was written off without its consent."""
    since_s: float = 0.0
    """When its state changed last, epoch seconds, for people and for the two minutes after TERM."""
    registered_s: float = 0.0
    report: Report = field(default_factory=Report)

    @property
    def is_recalled(self) -> bool:
        """Whether the drain under way was taken back."""
        return self.state in LEAVING and self.recall == self.drain_no


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One conditional write: `sets` takes effect only if the record `requires` is what it was decided on.

    `drops` names attributes that the record loses. `expects_none` requires that there be no record at all; `forbids`
    names attributes and values they must not have.
    """

    instance_id: str
    sets: Mapping[str, Any]
    requires: Mapping[str, Any] = field(default_factory=dict)
    forbids: Mapping[str, frozenset[State]] = field(default_factory=dict)
    adds: Mapping[str, int] = field(default_factory=dict)
    drops: frozenset[str] = frozenset()
    expects_none: bool = False


# the worker's own


def register(
    seen: Worker | None, *, instance_id: str, boot_id: str, now_s: float, term_is_final: bool = False
) -> Change | None:
    """Enter the registry after a start; None when the record stands as it is.

    A restart of the daemon within one boot changes nothing: a drain goes on. A record that the leader wrote for an
    instance that never reported is obeyed, however late the boot. Where ended instances do not come back
    (`term_is_final`), TERM holds for a boot after it too: the leader may be about to end the instance.
    """
    begin = {
        "instance_id": instance_id,
        "boot_id": boot_id,
        "state": State.ACTIVE,
        "beat": 0,
        "recall": 0,
        "replace": False,
        "firm": False,
        "why": "",
        "dead": False,
        "since_s": now_s,
        "registered_s": now_s,
        "report": Report(),
    }
    if seen is None:
        return Change(instance_id=instance_id, sets=begin | {"drain_no": 0}, expects_none=True)
    if seen.boot_id == boot_id or (seen.state is State.TERM and (term_is_final or seen.boot_id == NEVER_BOOTED)):
        return None
    return Change(
        instance_id=instance_id,
        sets=begin,
        requires={"state": seen.state, "boot_id": seen.boot_id},
        drops=frozenset({"expires_at"}),  # of the end that an earlier boot came to
    )


def beat(worker: Worker, report: Report, *, now_s: float) -> Change:
    """Tell that it lives and what it does; refused when it is to end, or when another boot has taken its place."""
    return Change(
        instance_id=worker.instance_id,
        sets={"report": report, "beat_s": now_s},
        adds={"beat": 1},
        requires={"boot_id": worker.boot_id},
        forbids={"state": FINAL},
    )


def consent(worker: Worker, *, now_s: float) -> Change:
    """DRAIN → DRAINED: its outstanding poll has come back and it holds nothing."""
    return _step(worker, State.DRAINED, now_s=now_s)


def resume(worker: Worker, *, now_s: float) -> Change:
    """DRAIN or DRAINED → ACTIVE, because the leader took the drain back. It may receive only after this succeeded."""
    return _step(worker, State.ACTIVE, now_s=now_s, why="")


# the leader's, an operator's, and a worker's that asks to go


def drain(worker: Worker, *, why: str, replace: bool = False, firm: bool = False, now_s: float) -> Change:
    """ACTIVE → DRAIN; `replace` when another is wanted in its place, `firm` when it is not to be recalled.

    A worker that wants to go drains itself so in any state but the final ones, which makes a recall void.
    """
    return _step(worker, State.DRAIN, now_s=now_s, why=why, replace=replace, firm=firm, drain_no=worker.drain_no + 1)


def recall(worker: Worker) -> Change:
    """Take a drain back; the worker alone returns to ACTIVE."""
    return Change(instance_id=worker.instance_id, sets={"recall": worker.drain_no}, requires=_as_seen(worker))


def terminate(worker: Worker, *, now_s: float, replace: bool | None = None) -> Change:
    """DRAINED → TERM; `replace` where what the drain said of it cannot be had."""
    return _step(worker, State.TERM, now_s=now_s, **({} if replace is None else {"replace": replace}))


def bury(worker: Worker, *, why: str, now_s: float) -> Change:
    """Any state → TERM without consent; a heartbeat since it was judged dead refuses it."""
    return Change(
        instance_id=worker.instance_id,
        sets={"state": State.TERM, "dead": True, "replace": True, "why": why, "since_s": now_s},
        requires=_as_seen(worker) | {"beat": worker.beat},
    )


def disown(instance_id: str, *, why: str, now_s: float) -> Change:
    """Write off an instance that never reported; a late boot finds this and obeys."""
    return Change(
        instance_id=instance_id,
        sets={
            "instance_id": instance_id,
            "boot_id": NEVER_BOOTED,
            "state": State.TERM,
            "drain_no": 0,
            "beat": 0,
            "recall": 0,
            "replace": True,
            "why": why,
            "dead": True,
            "since_s": now_s,
            "registered_s": now_s,
        },
        expects_none=True,
    )


def gone(worker: Worker, *, now_s: float, keep_s: float) -> Change:
    """Any state → GONE, because EC2 shows the instance ended; the record is dropped after `keep_s`."""
    return _step(worker, State.GONE, now_s=now_s, expires_at=int(now_s + keep_s))


def _as_seen(worker: Worker) -> dict[str, Any]:
    """Require the record to be in the state, boot and drain that the decision was made on."""
    return {"state": worker.state, "boot_id": worker.boot_id, "drain_no": worker.drain_no}


def _step(worker: Worker, to: State, *, now_s: float, **sets: Any) -> Change:
    return Change(
        instance_id=worker.instance_id, sets={"state": to, "since_s": now_s} | sets, requires=_as_seen(worker)
    )


# what a worker does with what it reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What a record asks of its worker: whether it may receive, what it writes, whether it ends itself."""

    may_receive: bool
    change: Change | None = None
    ends: bool = False


def duty(worker: Worker, *, boot_id: str, is_idle: bool, now_s: float, term_is_final: bool = False) -> Duty:
    """Return what the worker of this boot has to do, having read its own record.

    `is_idle` means that no long poll is outstanding and nothing is held; it counts only if receiving was closed before
    it was measured. A worker whose record belongs to another boot, or that never registered, receives nothing.
    """
    if worker.state in FINAL:
        is_ours = term_is_final or worker.boot_id in {boot_id, NEVER_BOOTED}
        return Duty(may_receive=False, ends=worker.state is State.TERM and is_ours)
    if worker.boot_id != boot_id:
        return Duty(may_receive=False)
    if worker.state is State.ACTIVE:
        return Duty(may_receive=True)
    if worker.is_recalled:
        return Duty(may_receive=False, change=resume(worker, now_s=now_s))
    if worker.state is State.DRAIN and is_idle:
        return Duty(may_receive=False, change=consent(worker, now_s=now_s))
    return Duty(may_receive=False)
