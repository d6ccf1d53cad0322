"""From what was observed to the figures of a run: pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.engine import Use
from benchmarks.prices import item_bytes, usd_per_million
from benchmarks.proxy import Call, Image
from benchmarks.runner import Observed
from benchmarks.scenarios import Scenario
from benchmarks.tasks import BenchTask
from benchmarks.world import TOKEN

Figures = dict[str, Any]
LATE_S = 0.002
"""An emulator that is slower than the assumed latency by more than this is counted as late."""
RENDERS_PER_KILL = 2
"""A SIGKILL costs the picture that renders and the one that is not stored yet; both must be rendered again."""
WORKING = {"pending", "processing", "waiting"}


def figures(seen: Observed) -> Figures:
    """Return every figure of one run, ready for JSON; None where there is nothing to measure."""
    good = [task for task in seen.tasks if task.bad is None]
    stored = _stored(seen.images, seen.tasks)
    made = Counter(use.token for use in seen.uses if use.kind == "render" and use.token)
    done = sum(task.token in stored for task in good)
    start_s, end_s = _span(seen, stored)
    bad_fates = {task.token: _fate(task, seen) for task in seen.tasks if task.bad}
    missing = sum(fate == "nowhere" for fate in bad_fates.values())
    result: Figures = {
        "scenario": seen.scenario.name,
        "tasks": len(seen.tasks),
        "done": done,
        "lost": len(good) - done,
        "unaccounted": max(0, missing - seen.left),
        "duplicate_generations": sum(made[task.token] - 1 for task in good if made[task.token]),
        "duplicate_images": sum(len(ends) - 1 for ends in stored.values()),
        "work_s": end_s - start_s,
        "tasks_per_s": done / (end_s - start_s) if end_s > start_s else 0.0,
        "startup_s": start_s - seen.spawned_s,
        "cpu_ms_per_task": 1000 * (seen.cpu_s - (seen.watched.cpu_at_first_message_s or 0.0)) / len(seen.tasks),
        "peak_rss_mb": seen.peak_rss_bytes / 1e6,
        "load_before": seen.load_before,
        "timed_out": seen.watched.timed_out,
        "refused_by_engine": seen.refused_by_engine,
        "bad_fates": _by_kind(seen.tasks, bad_fates),
    }
    result |= _gpu(seen.uses, seen.scenario) | _calls([call for call in seen.calls if call.arrived_s <= end_s], seen)
    return result | _ends(seen) | _of_ideal(result, seen)


def has_failed(result: Figures) -> bool:
    """Tell whether a run lost a task, lost track of a bad one, or did anything twice without an excuse."""
    excusable = RENDERS_PER_KILL * result["kills"]
    twice = result["duplicate_images"] or result["duplicate_generations"] > excusable
    return bool(result["lost"] or result["unaccounted"] or twice)


def _stored(images: Iterable[Image], tasks: Sequence[BenchTask]) -> dict[str, list[float]]:
    """When each token's images were stored; an image without a token is traced by the task id in its key."""
    tokens = {task.token for task in tasks}
    stored: dict[str, list[float]] = {}
    for image in images:
        token = image.token
        if token not in tokens:
            token = next((task.token for task in tasks if task.task_id in image.path), None)
        if token is not None:
            stored.setdefault(token, []).append(image.stored_s)
    return stored


def _span(seen: Observed, stored: dict[str, list[float]]) -> tuple[float, float]:
    """From the first receive that brought messages to the last image stored or message deleted."""
    start_s = min((call.arrived_s for call in seen.calls if call.filled), default=seen.spawned_s)
    ends = [end_s for times in stored.values() for end_s in times]
    ends += [call.answered_s for call in seen.calls if call.operation.startswith("DeleteMessage")]
    return start_s, max(ends, default=start_s)


def _gpu(uses: Sequence[Use], scenario: Scenario) -> Figures:
    """Duty is rendering, interrupted or not, as a share of the time from the first use of the GPU to the last."""
    ordered = sorted(uses, key=lambda use: use.start_s)
    span_s = ordered[-1].end_s - ordered[0].start_s if ordered else 0.0
    renders = [use for use in ordered if use.kind != "switch"]
    rendering_s = sum(use.end_s - use.start_s for use in renders)
    idle_ms = sorted(1000 * max(0.0, after.start_s - before.end_s) for before, after in pairwise(ordered))
    return {
        "gpu_duty": rendering_s / span_s if span_s and scenario.render_s else None,
        "idle_ms_median": median(idle_ms) if idle_ms else None,
        "idle_ms_p95": idle_ms[min(len(idle_ms) - 1, int(0.95 * len(idle_ms)))] if idle_ms else None,
        "switches": len(ordered) - len(renders),
        "interrupted": sum(use.kind == "interrupted" for use in ordered),
    }


def _calls(calls: Sequence[Call], seen: Observed) -> Figures:
    """AWS calls until the work was done; polls of an empty queue afterwards belong to no task."""
    sizes = [item_bytes(item) for item in seen.items]
    write_units = _mean([math.ceil(size / 1024) for size in sizes], 1.0)
    read_units = _mean([math.ceil(size / 4096) for size in sizes], 1.0)
    cost = sum(
        usd_per_million(call.service, call.operation, call.units, write_units=write_units, read_units=read_units)
        for call in calls
    )
    count = len(seen.tasks)
    by_operation = Counter(f"{call.service} {call.operation}" for call in calls)
    return {
        "calls_per_task": len(calls) / count,
        "usd_per_million_tasks": cost / count,
        "record_bytes_median": median(sizes) if sizes else None,
        "late_share": sum(call.late_s > LATE_S for call in calls) / max(1, len(calls)),
        "errors_by_status": dict(Counter(str(call.status) for call in calls if call.status >= 400)),
        "by_operation": {name: calls_made / count for name, calls_made in sorted(by_operation.items())},
    }


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _ends(seen: Observed) -> Figures:
    """How it stopped, and what was left behind."""
    stops = seen.watched.stops
    return {
        "deaths": seen.watched.deaths,
        "kills": seen.watched.kills,
        "dead_lettered": len(seen.dead_letters),
        "left": seen.left,
        "stop_s": seen.idle_stop.seconds,
        "stop_busy_s": max((stop.seconds for stop in stops), default=None),
        "had_to_be_killed": sum(stop.was_killed for stop in (*stops, seen.idle_stop)),
        # What one stop leaves is still in flight at the next: the largest reading is what was left.
        "in_flight_after_stop": max(*seen.watched.in_flight_after_stops, seen.in_flight, 0),
    }


def _fate(task: BenchTask, seen: Observed) -> str:
    """Where a bad task can be found afterwards."""
    if any(task.token in TOKEN.findall(body) for body in seen.dead_letters):
        return "dead-lettered"
    if any(task.token in TOKEN.findall(text) for text in seen.set_aside):
        return "set aside in the bucket"
    for item in seen.items:
        if item[seen.table_key].get("S") == task.task_id:
            status = item.get("status", item.get("taskStatus", {})).get("S", "unknown")
            return "nowhere" if status in WORKING else f"recorded as {status}"
    return "nowhere"


def _by_kind(tasks: Sequence[BenchTask], fates: dict[str, str]) -> dict[str, dict[str, int]]:
    kinds: dict[str, Counter[str]] = {}
    for task in tasks:
        if task.bad:
            kinds.setdefault(task.bad, Counter())[fates[task.token]] += 1
    return {kind: dict(counts) for kind, counts in sorted(kinds.items())}


def ideal_tasks_per_s(tasks: Sequence[BenchTask], scenario: Scenario) -> float | None:
    """Return what no overhead and the fewest switches would give; None for an engine that takes no time."""
    good = [task for task in tasks if task.bad is None]
    wanted = {task.checkpoint for task in good if task.checkpoint}
    span_s = len(good) * scenario.render_s + max(0, len(wanted) - 1) * scenario.switch_s
    return len(good) / span_s if span_s else None


def _of_ideal(result: Figures, seen: Observed) -> Figures:
    ideal = ideal_tasks_per_s(seen.tasks, seen.scenario)
    return {"of_ideal": result["tasks_per_s"] / ideal if ideal else None}


def merge(runs: Sequence[Figures]) -> Figures:
    """Return the medians of repeated runs; what must not happen is summed, and what is no number is the last run's."""
    merged = dict(runs[-1])
    for name, value in merged.items():
        if isinstance(value, float) or name in {"switches", "interrupted"}:
            values = [run[name] for run in runs if run[name] is not None]
            merged[name] = median(values) if values else None
        elif isinstance(value, int) and name not in {"tasks", "timed_out"}:
            merged[name] = sum(run[name] for run in runs)
    return merged | {"runs": len(runs)}
