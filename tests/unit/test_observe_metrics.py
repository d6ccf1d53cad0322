"""The metrics: the arithmetic of the duty ratio, and a text that Prometheus reads."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from scheduler.observe import metrics as module
from scheduler.observe.fleet_metrics import GAUGES
from scheduler.observe.gpu import Gpu
from scheduler.observe.metrics import Metrics

FAMILIES = {
    "tasks",
    "returned",
    "refused_messages",
    "received_messages",
    "receives",
    "aws_errors",
    "leases_lost",
    "announcements",
    "checkpoint_switches",
    "rendering_seconds",
    "starved_seconds",
    "engine_up",
    "queued_seconds",
    "generate_seconds",
    "store_seconds",
    "gpu_duty_ratio",
    "gpu_cost_usd",
    *(f"fleet_{name}" for name in (*GAUGES, "leads", "held", "ticks", "events", "idle_worker_seconds", "notices")),
    *(f"fleet_{name}" for name in ("modifying_seconds", "failed_steps", "drain_seconds")),
}


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name.removeprefix("sd_scheduler_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_every_family_is_there_from_the_start_with_a_help_text():
    families = list(text_string_to_metric_families(Metrics().text().decode()))
    named = {family.name.removeprefix("sd_scheduler_") for family in families if not family.name.endswith("_created")}
    assert named == FAMILIES
    assert all(family.documentation for family in families)


def test_the_duty_is_rendering_over_rendering_and_starved_for_each_engine():
    metrics = Metrics()
    assert value(metrics, "gpu_duty_ratio", engine="e1") is None
    metrics.rendered("e1", seconds=3.0, starved_s=1.0)
    assert value(metrics, "gpu_duty_ratio", engine="e1") == 0.75
    metrics.rendered("e1", seconds=5.0, starved_s=1.0)
    metrics.rendered("e2", seconds=2.0, starved_s=0.0)
    assert value(metrics, "gpu_duty_ratio", engine="e1") == 0.8
    assert value(metrics, "gpu_duty_ratio", engine="e2") == 1.0
    assert value(metrics, "rendering_seconds_total", engine="e1") == 8.0
    assert value(metrics, "starved_seconds_total", engine="e1") == 2.0


def test_a_render_without_time_says_nothing_of_the_duty():
    metrics = Metrics()
    metrics.rendered("e1", seconds=0.0, starved_s=0.0)
    assert value(metrics, "gpu_duty_ratio", engine="e1") is None


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 600)), min_size=1, max_size=20))
def test_the_duty_is_a_ratio_whatever_was_measured(renders):
    metrics = Metrics()
    for seconds, starved_s in renders:
        metrics.rendered("e", seconds=seconds, starved_s=starved_s)
    duty = value(metrics, "gpu_duty_ratio", engine="e")
    total = sum(map(sum, renders))
    if total == 0:
        assert duty is None
    else:
        assert 0.0 <= duty <= 1.0
        assert duty == pytest.approx(math.fsum(seconds for seconds, _ in renders) / total)


@pytest.mark.parametrize("label", ['say "no"', "back\\slash", "two\nlines", "狐", ""])
def test_any_label_survives_the_text(label):
    metrics = Metrics()
    metrics.returned.labels(label).inc(3)
    assert value(metrics, "returned_total", reason=label) == 3


def test_histograms_have_bounds_for_quick_and_slow_renders():
    metrics = Metrics()
    for seconds in (0.05, 3.0, 59.0, 1000.0):
        metrics.generate_s.observe(seconds)
    assert value(metrics, "generate_seconds_count") == 4
    assert value(metrics, "generate_seconds_bucket", le="0.1") == 1
    assert value(metrics, "generate_seconds_bucket", le="60.0") == 3
    assert value(metrics, "generate_seconds_bucket", le="+Inf") == 4


def test_what_is_held_is_counted_at_each_scrape(monkeypatch):
    monkeypatch.setattr(module, "read_gpus", list)
    metrics, held = Metrics(), {"running": 1, "waiting": 4}
    metrics.watch(lambda: held)
    assert value(metrics, "held_tasks", state="waiting") == 4
    held.update(waiting=0)
    assert value(metrics, "held_tasks", state="waiting") == 0
    assert value(metrics, "held_tasks", state="running") == 1
    assert not any("memory" in name for name, _ in samples(metrics))


def test_what_the_gpus_say_is_read_at_each_scrape(monkeypatch):
    gpus = [
        Gpu(name="0", utilization=0.97, memory_used_bytes=20 * 2**30, memory_total_bytes=24 * 2**30),
        Gpu(name="1", utilization=0.0, memory_used_bytes=2**30, memory_total_bytes=24 * 2**30),
    ]
    monkeypatch.setattr(module, "read_gpus", lambda: gpus)
    metrics = Metrics()
    metrics.watch(dict)
    assert value(metrics, "gpu_utilization_ratio", gpu="0") == 0.97
    assert value(metrics, "gpu_memory_used_bytes", gpu="1") == 2**30
    assert value(metrics, "gpu_memory_total_bytes", gpu="0") == 24 * 2**30
    gpus.clear()
    assert value(metrics, "gpu_utilization_ratio", gpu="0") is None


def test_two_schedulers_in_one_process_do_not_share_metrics():
    one, other = Metrics(), Metrics()
    one.receives.inc()
    assert (value(one, "receives_total"), value(other, "receives_total")) == (1, 0)


def test_threads_may_count_at_once():
    metrics = Metrics()

    def count() -> None:
        for _ in range(1000):
            metrics.tasks.labels("completed").inc()

    threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert value(metrics, "tasks_total", outcome="completed") == 4000


def test_only_who_leads_shows_the_fleets_figures():
    metrics = Metrics()
    metrics.fleet.led({"target": 3, "serving": 3, "running": 1}, events=["target_set"], is_held=True, passed_s=15.0)
    assert (value(metrics, "fleet_target"), value(metrics, "fleet_leads"), value(metrics, "fleet_held")) == (3, 1, 1)
    assert value(metrics, "fleet_idle_worker_seconds_total") == 30
    assert value(metrics, "fleet_events_total", event="target_set") == 1
    metrics.fleet.follows()
    for name in ("fleet_target", "fleet_held"):
        shown = value(metrics, name)
        assert shown is not None
        assert math.isnan(shown)
    assert value(metrics, "fleet_leads") == 0


def test_what_a_change_of_the_fleet_costs_is_counted():
    metrics = Metrics()
    for is_modifying in (True, True, False):
        metrics.fleet.saw(is_modifying=is_modifying, drains_s=[12.0], failed_steps=["target"], passed_s=5.0)
    assert value(metrics, "fleet_modifying_seconds_total") == 10
    assert value(metrics, "fleet_drain_seconds_sum") == 36
    assert value(metrics, "fleet_failed_steps_total", step="target") == 3
