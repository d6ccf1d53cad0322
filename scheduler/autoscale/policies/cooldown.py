"""What the rules by queue length share: a change, then a pause; a first worker for whatever waits."""

from __future__ import annotations

from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot


def stepped(snapshot: Snapshot, state: PolicyState, *, add: int, remove: int, cooldown_s: float) -> Decision:
    """Return `add` workers more, or `remove` fewer when nothing waits and nothing is under way, or as many as there
    are.

    What is decided stands for `cooldown_s`, also while the fleet still moves towards it. After that the fleet's target
    counts and not the wish: one that was not carried out, in a pause or a hold, must not grow into the next one. A
    fleet of none gets one worker for whatever waits: a queue that stays short of the threshold would else wait for
    ever.
    """
    now_s = snapshot.at_s
    since_s = now_s - float(state.get("changed_s", now_s - cooldown_s))
    if "capacity" in state and since_s < cooldown_s:
        wish = snapshot.within_bounds(int(state["capacity"]))
        reason = f"changed {since_s:.0f} s ago, the next change comes {cooldown_s:.0f} s after it"
        return Decision(capacity=wish, reasons=(reason,), state={**state, "capacity": wish})
    capacity = snapshot.target
    bounded = snapshot.within_bounds(capacity)
    queue = f"{snapshot.waiting} waiting, {snapshot.busy} under way"
    wanted, reason = capacity, queue
    if add > 0:
        wanted, reason = capacity + add, f"{queue}: {add} more"
    elif capacity == 0 and snapshot.waiting > 0:
        wanted, reason = 1, f"{queue}, no worker: the first"
    elif _is_idle(snapshot):
        wanted, reason = capacity - remove, f"{queue}: {remove} fewer"
    wanted = snapshot.within_bounds(wanted)
    if wanted == bounded:
        return Decision(capacity=bounded, reasons=(queue,), state={**state, "capacity": bounded})
    return Decision(capacity=wanted, reasons=(reason,), state={"capacity": wanted, "changed_s": now_s})


def _is_idle(snapshot: Snapshot) -> bool:
    return not (snapshot.waiting or snapshot.in_flight or snapshot.busy)
