"""What a decision looks like in the metrics of the host that leads."""

from __future__ import annotations

from scheduler.autoscale.leader import Outcome
from scheduler.observe.fleet_metrics import FleetMetrics


def show(outcome: Outcome, metrics: FleetMetrics, *, passed_s: float) -> None:
    """Show what was decided, if it was decided here; `passed_s` is the time since the decision before."""
    book, drawn = outcome.book, outcome.plan
    if book is None or drawn is None or not outcome.leads:
        metrics.follows()
        return
    events = [event.name for event in drawn.events]
    figures = {} if book.capacity is None else {"wanted": float(book.capacity)}
    if (seen := book.snapshot) is not None:
        figures |= {name: getattr(seen, name) for name in ("target", "serving", "draining", "visible")}
        figures |= {"booting": len(seen.booting_s), "in_flight": seen.in_flight, "running": seen.running}
        figures |= {"service_seconds": seen.service_s, "boot_seconds": seen.boot_s}
        figures |= {"members": seen.members, "waited_seconds": seen.waited_s}
    metrics.led(figures, events=events, is_held=bool(book.hold), passed_s=passed_s)
    metrics.saw(
        is_modifying=outcome.look.is_modifying,
        drains_s=outcome.look.drains_s,
        failed_steps=outcome.failed_steps,
        passed_s=passed_s,
    )
