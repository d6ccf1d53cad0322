"""The metrics of one scheduler, by the names that dashboards know; in a registry of their own, not the global one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scheduler.observe.fleet_metrics import FleetMetrics
from scheduler.observe.gpu import read_gpus

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)


class Metrics:
    """Counters and gauges; every attribute may be used from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = self._counter
        self.tasks = counter("tasks", "Tasks that came to an end here, and how", "outcome")
        self.returned = counter("returned", "Tasks given back to the queue, and why", "reason")
        self.refused = counter("refused_messages", "Messages that could not become a task")
        self.received = counter("received_messages", "Messages received")
        self.receives = counter("receives", "Receive calls answered")
        self.announcements = counter("announcements", "Ends told to others, by what was told", "kind", "outcome")
        self.aws_errors = counter("aws_errors", "AWS calls that failed after their retries")
        self.leases_lost = counter("leases_lost", "Claims taken over by another worker")
        self.switches = counter("checkpoint_switches", "Renders that had to load another checkpoint", "engine")
        self.gpu_cost_usd = counter("gpu_cost_usd", "What the instance cost for the renders of completed tasks")
        self.rendering_s = counter("rendering_seconds", "Seconds in which the engine rendered", "engine")
        self.starved_s = counter("starved_seconds", "Seconds in which it did not although work waited", "engine")
        self.engine_up = self._gauge("engine_up", "1 when the engine can take a request", "engine")
        self.queued_s = self._histogram("queued_seconds", "From send to the start of the render")
        self.generate_s = self._histogram("generate_seconds", "Renders, by the engine's answer")
        self.store_s = self._histogram("store_seconds", "From the engine's answer to the final record")
        self._duty = self._gauge("gpu_duty_ratio", "Rendering over rendering and starved, since the start", "engine")
        self.fleet = FleetMetrics(self.registry)
        self._rendered: dict[str, float] = {}
        self._starved: dict[str, float] = {}

    def rendered(self, engine: str, *, seconds: float, starved_s: float) -> None:
        """Count one render and the time before it in which its task waited and the engine did nothing.

        Called by the engine's own thread only.
        """
        self.rendering_s.labels(engine).inc(seconds)
        self.starved_s.labels(engine).inc(starved_s)
        rendered = self._rendered[engine] = self._rendered.get(engine, 0.0) + seconds
        starved = self._starved[engine] = self._starved.get(engine, 0.0) + starved_s
        if rendered + starved > 0:
            self._duty.labels(engine).set(rendered / (rendered + starved))

    def watch(self, held_by_state: Callable[[], Mapping[str, int]]) -> None:
        """Show at every scrape how many tasks are held in each state, and what the GPUs say."""
        self.registry.register(_AtScrape(held_by_state))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace="sd_scheduler", registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace="sd_scheduler", registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, namespace="sd_scheduler", registry=self.registry, buckets=SECONDS)


class _AtScrape(Collector):
    def __init__(self, held_by_state: Callable[[], Mapping[str, int]]) -> None:
        self._held_by_state = held_by_state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held = GaugeMetricFamily("sd_scheduler_held_tasks", "Tasks in hand", labels=["state"])
        for state, count in self._held_by_state().items():
            held.add_metric([state], count)
        yield held
        gpus = read_gpus()
        families = {
            "utilization_ratio": GaugeMetricFamily("sd_scheduler_gpu_utilization_ratio", "By NVML", labels=["gpu"]),
            "memory_used_bytes": GaugeMetricFamily("sd_scheduler_gpu_memory_used_bytes", "By NVML", labels=["gpu"]),
            "memory_total_bytes": GaugeMetricFamily("sd_scheduler_gpu_memory_total_bytes", "By NVML", labels=["gpu"]),
        }
        for gpu in gpus:
            families["utilization_ratio"].add_metric([gpu.name], gpu.utilization)
            families["memory_used_bytes"].add_metric([gpu.name], gpu.memory_used_bytes)
            families["memory_total_bytes"].add_metric([gpu.name], gpu.memory_total_bytes)
        if gpus:
            yield from families.values()
