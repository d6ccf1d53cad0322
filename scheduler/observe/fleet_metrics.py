"""Metrics of the fleet: what whoever leads sees and does, and what is announced to this host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

GAUGES = {
    "wanted": "Workers that the policy wants",
    "target": "The fleet's target",
    "serving": "Workers that report and take work",
    "booting": "Members that are launched and do not take work yet",
    "draining": "Workers on their way out",
    "visible": "Messages that wait in the queues",
    "in_flight": "Messages that somebody holds",
    "running": "Tasks that workers report as running",
    "service_seconds": "GPU seconds of a task over the whole fleet, as measured",
    "boot_seconds": "From launch to readiness, as measured",
}


class FleetMetrics:
    """Only who leads shows the fleet's figures; with another leader they are not set, so that sums are not doubled."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, namespace="sd_scheduler_fleet", registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace="sd_scheduler_fleet", registry=registry)

        self._leads = gauge("leads", "1 where this host leads the fleet")
        self._held = gauge("held", "1 while nothing is done about what is wanted")
        self._gauges = {name: gauge(name, text) for name, text in GAUGES.items()}
        self._ticks = counter("ticks", "Decisions made here")
        self._events = counter("events", "What happened to the fleet while this host led it", "event")
        self._idle_s = counter(
            "idle_worker_seconds", "Seconds that serving workers rendered nothing, while this host led"
        )
        self.notices = counter("notices", "What EC2 announced about this host", "kind")

    def led(self, figures: Mapping[str, float], *, events: Iterable[str], is_held: bool, passed_s: float) -> None:
        """Show a decision made here; `passed_s` is the time since the one before."""
        self._leads.set(1)
        self._held.set(is_held)
        self._ticks.inc()
        for name, gauge in self._gauges.items():
            gauge.set(figures.get(name, float("nan")))
        for event in events:
            self._events.labels(event).inc()
        self._idle_s.inc(passed_s * max(0.0, figures.get("serving", 0) - figures.get("running", 0)))

    def follows(self) -> None:
        """Show that another leads."""
        self._leads.set(0)
        for gauge in self._gauges.values():
            gauge.set(float("nan"))
