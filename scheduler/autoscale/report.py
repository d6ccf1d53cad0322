"""The fleet as people are shown it: one moment's figures and every worker, as plain values; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scheduler.autoscale.book import PAUSED, Book, Pause
from scheduler.autoscale.fleets.port import FleetView, Life, Member
from scheduler.autoscale.ports import QueueCounts, Registry
from scheduler.autoscale.protocol import State, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLine:
    """One worker, or one member that has not reported."""

    instance_id: str
    state: str
    running: int = 0
    waiting: int = 0
    finished: int = 0
    idle_s: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """The fleet at one moment."""

    fleet: str
    condition: str
    target: int
    members: int
    wanted: int | None
    policy: str
    reasons: tuple[str, ...]
    hold: str
    leader: str
    decided_s_ago: float | None
    paused_for_s: float
    paused_by: str
    paused_why: str
    visible: int
    in_flight: int
    trouble: str
    workers: tuple[WorkerLine, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON's types."""
        return asdict(self)


def report(
    view: FleetView,
    registry: Registry,
    counts: QueueCounts,
    *,
    name: str,
    book: Book | None,
    pause: Pause | None,
    now_s: float,
) -> FleetReport:
    """Put together what there is to see."""
    alive = [member for member in view.members if member.life is not Life.ENDING]
    held = book.hold if book else ""
    if pause is not None and now_s >= pause.until_s:
        pause = None
    if pause is not None:
        held = pause.told
    elif held.startswith(PAUSED):
        held = ""  # it is over, and nothing has been decided since
    return FleetReport(
        fleet=name,
        condition=view.condition.value,
        target=view.target,
        members=len(alive),
        wanted=book.capacity if book else None,
        policy=book.policy if book else "",
        reasons=book.reasons if book else (),
        hold=held,
        leader=book.leader if book else "",
        decided_s_ago=round(now_s - book.written_s, 1) if book else None,
        paused_for_s=round(pause.until_s - now_s, 1) if pause else 0.0,
        paused_by=pause.by if pause else "",
        paused_why=pause.why if pause else "",
        visible=counts.visible + counts.delayed,
        in_flight=counts.in_flight,
        trouble=view.trouble,
        workers=tuple(sorted(_lines(registry, alive, now_s=now_s), key=lambda line: line.instance_id)),
    )


def _lines(registry: Registry, alive: Sequence[Member], *, now_s: float) -> Iterator[WorkerLine]:
    known = {worker.instance_id: worker for worker in registry.workers if worker.state is not State.GONE}
    present = {member.instance_id for member in alive}
    for worker in known.values():
        yield _line(worker, is_present=worker.instance_id in present)
    for one, why in registry.unreadable.items():
        yield WorkerLine(instance_id=one, state="unreadable", note=f"its record makes no sense: {why}")
    for member in alive:
        if member.instance_id not in known and member.instance_id not in registry.unreadable:
            note = f"launched {now_s - member.launched_s:.0f} s ago, has not reported yet"
            yield WorkerLine(instance_id=member.instance_id, state="booting", note=note)


def _line(worker: Worker, *, is_present: bool) -> WorkerLine:
    told = worker.report
    state = worker.state.value
    if worker.state is State.ACTIVE and told.ready_s is None:
        state = "preparing"
    elif worker.state is State.TERM and not is_present:
        state = "ended"
    return WorkerLine(
        instance_id=worker.instance_id,
        state=state,
        running=told.running,
        waiting=told.waiting,
        finished=told.finished,
        idle_s=round(told.idle_s, 1),
        note=worker.why or told.leave_first,
    )


def explained(book: Book) -> list[str]:
    """Return a decision and what it was made from, in lines for a person."""
    snapshot = book.snapshot
    wanted = "nothing decided" if book.capacity is None else f"{book.capacity} wanted ({book.policy})"
    lines = [f"{wanted}, by {book.leader or 'nobody'}"]
    if snapshot is not None:
        lines.append(
            f"  queue: {snapshot.visible} visible, {snapshot.delayed} delayed, {snapshot.in_flight} in flight; "
            f"workers report {snapshot.running} running, {snapshot.held_waiting} waiting"
        )
        lines.append(
            f"  fleet: target {snapshot.target}, {snapshot.serving} serving, {len(snapshot.booting_s)} booting, "
            f"{snapshot.draining} leaving; a task takes {snapshot.service_s:.1f} s ({_from(book.finished_total)}), "
            f"a boot {snapshot.boot_s:.0f} s ({_from(book.boots)})"
        )
    lines += [f"  because {reason}" for reason in book.reasons]
    if book.hold:
        lines.append(f"  held: {book.hold}")
    return lines


def _from(measured: int) -> str:
    """Say what an average rests on: it moves from a guess towards what is measured."""
    return f"a guess and {measured} measured" if measured else "assumed"
