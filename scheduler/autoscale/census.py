"""Who is who in the fleet: EC2's members and the registry's records put together; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from scheduler.autoscale.fleets.port import FleetView, Life, Member
from scheduler.autoscale.protocol import LEAVING, State, Worker

BOOT_GRACE_S = 900.0
"""A member that has not reported, or whose engine never got ready, by so long after its launch never will."""
FRESH_S = 60.0
"""A worker whose heartbeat has not changed for longer takes no work: it has fenced itself off by then."""
LISTED_AFTER_S = 300.0
"""By then a new instance is in EC2's lists everywhere."""
MOST_SILENT = 0.2
KILL_AFTER_S = 120.0
"""How long a worker that consented gets to end itself before the leader does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Every member and its record in exactly one place, but for `stillborn`, who are in `unready` too.

    Who reports to this registry and is no member of the fleet is in none.
    """

    serving: tuple[Worker, ...] = ()
    """They report, are ready, and take work."""
    unready: tuple[Worker, ...] = ()
    """They report, and their engine has never been ready yet."""
    booting: tuple[Member, ...] = ()
    """Launched, and not reporting yet."""
    silent: tuple[Worker, ...] = ()
    """ACTIVE by their record, but their heartbeat has not changed for a minute."""
    leaving: tuple[Worker, ...] = ()
    """DRAIN or DRAINED."""
    ending: tuple[Worker, ...] = ()
    """TERM, and EC2 still has them."""
    ended: tuple[Worker, ...] = ()
    """EC2 shows them ended, or knows them no more."""
    unreported: tuple[Member, ...] = ()
    """Launched longer ago than a boot may take, and no word from them for as long as there has been a registry."""
    stillborn: tuple[Worker, ...] = ()
    """Their engine did not get ready within the boot's grace."""
    unreadable: tuple[Member, ...] = ()
    """Their record makes no sense. Nothing is known of them, so nothing is done to them."""

    @property
    def alive(self) -> int:
        """Return how many members EC2 has that are not on their way out in its own eyes."""
        workers = (self.serving, self.unready, self.silent, self.leaving, self.ending)
        members = (self.booting, self.unreported, self.unreadable)
        return sum(map(len, (*workers, *members)))

    @property
    def is_table_suspect(self) -> bool:
        """Whether so many are silent, more than one and over a fifth, that it is rather the table that is sick."""
        return self.is_suspect_by(len(self.silent))

    def is_suspect_by(self, silent: int) -> bool:
        """Tell whether so many silent ones speak against the table."""
        reporting = len(self.serving) + len(self.unready) + len(self.silent)
        return silent > max(1, reporting * MOST_SILENT)


def take(
    view: FleetView,
    workers: Iterable[Worker],
    silent_s: Mapping[str, float],
    *,
    unreadable: Collection[str] = (),
    began_s: float = 0.0,
    now_s: float,
) -> Census:
    """Put together what EC2 and the registry show.

    `silent_s` tells for each instance how long its heartbeat has not changed, counted by the leader between its own
    successful reads, so that no clock but its own is in it. `unreadable` are instances whose record is there and makes
    no sense. `began_s` is when the registry began.
    """
    found: dict[str, list[Worker]] = {}
    members = {member.instance_id: member for member in view.members}
    records = {worker.instance_id: worker for worker in workers if worker.state is not State.GONE}
    for worker in records.values():
        member = members.get(worker.instance_id)
        is_silent = silent_s.get(worker.instance_id, 0.0) >= FRESH_S
        place = _place(worker, member, is_silent=is_silent, now_s=now_s)
        if place is None:
            continue
        found.setdefault(place, []).append(worker)
        if place == "unready" and member is not None and now_s - _begun_s(worker, member) > BOOT_GRACE_S:
            found.setdefault("stillborn", []).append(worker)
    strange = [one for one in view.members if one.life is not Life.ENDING and one.instance_id not in records]
    unknown = [member for member in strange if member.instance_id not in unreadable]
    is_late = {one.instance_id: now_s - max(one.launched_s, began_s) > BOOT_GRACE_S for one in unknown}
    return Census(
        booting=tuple(member for member in unknown if not is_late[member.instance_id]),
        unreported=tuple(member for member in unknown if is_late[member.instance_id]),
        unreadable=tuple(member for member in strange if member.instance_id in unreadable),
        **{place: tuple(who) for place, who in found.items()},
    )


def _place(worker: Worker, member: Member | None, *, is_silent: bool, now_s: float) -> str | None:
    if member is None:
        is_listed = abs(now_s - worker.registered_s) > LISTED_AFTER_S  # its clock may be wrong
        if is_listed and (is_silent or worker.state is State.TERM):
            return "ended"
        if is_listed:
            return None
    elif member.life is Life.ENDING:
        return "ended"
    if worker.state is State.TERM:
        return "ending"
    if worker.state in LEAVING:
        return "leaving"
    if is_silent:
        return "silent"
    return "unready" if worker.report.ready_s is None else "serving"


def _begun_s(worker: Worker, member: Member) -> float:
    return max(worker.registered_s, member.launched_s)
