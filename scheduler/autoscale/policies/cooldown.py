"""What the rules by queue length share: a change, then a pause; a first worker for whatever waits."""

from __future__ import annotations

from scheduler.autoscale.snapshot import Decision, PolicyState, Snapshot


def stepped(snapshot: Snapshot, state: PolicyState, *, add: int, remove: int, cooldown_s: float) -> Decision:
    """Return `add` workers more, or `remove` fewer when nothing waits and nothing is under way, or as many as there are.

    What is decided stands for `cooldown_s`, also while the fleet still moves towards it. A fleet of none gets one
    worker for whatever waits: a queue that stays short of the threshold would else wait for ever.
    """
    now_s, is_known = snapshot.at_s, "capacity" in state
    capacity = int(state["capacity"]) if is_known else snapshot.target
    bounded = snapshot.within_bounds(capacity)
    since_s = now_s - float(state.get("changed_s", -cooldown_s + now_s))
    if is_known and since_s < cooldown_s:
        reason = f"changed {since_s:.0f} s ago, the next change comes {cooldown_s:.0f} s after it"
        return Decision(capacity=bounded, reasons=(reason,), state={**state, "capacity": bounded})
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
