"""Metrics of the fleet: what whoever leads sees and does, and what is announced to this host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DRAIN_S = (5, 10, 20, 40, 60, 120, 300, 600)
GAUGES = {
    "wanted": "Workers that the policy wants",
    "target": "The fleet's target",
    "serving": "Workers that report and take work",
    "booting": "Members that are launched and do not take work yet",
    "draining": "Workers on their way out",
    "visible": "Messages that wait in the queues",
    "in_flight": "Messages that somebody holds",
    "running": "Tasks that workers report as running",
    "members": "Instances that EC2 shows and that are not ending",
    "waited_seconds": "How long the task that was received last had waited, the longest over the workers",
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
        self._modifying_s = counter("modifying_seconds", "Seconds in which a change of the target was under way")
        self._failed_steps = counter("failed_steps", "Steps of a plan that AWS did not carry out", "step")
        self._drain_s = Histogram(
            "drain_seconds",
            "From being asked to go to consent",
            namespace="sd_scheduler_fleet",
            registry=registry,
            buckets=DRAIN_S,
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

    def saw(
        self, *, is_modifying: bool, drains_s: Iterable[float], failed_steps: Iterable[str], passed_s: float
    ) -> None:
        """Count what was seen since the decision before, and what of this one AWS did not carry out."""
        self._modifying_s.inc(passed_s if is_modifying else 0.0)
        for seconds in drains_s:
            self._drain_s.observe(seconds)
        for step in failed_steps:
            self._failed_steps.labels(step).inc()

    def follows(self) -> None:
        """Show that another leads."""
        self._leads.set(0)
        self._held.set(float("nan"))
        for gauge in self._gauges.values():
            gauge.set(float("nan"))
