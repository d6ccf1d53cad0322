"""Figures as Markdown tables that also read well in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Figures

Column = tuple[str, str, str]
IDENTITY: tuple[Column, ...] = (("scenario", "scenario", ""), ("consumer", "consumer", ""), ("runs", "runs", "d"))
SPEED: tuple[Column, ...] = (
    ("tasks/s", "tasks_per_s", ".2f"),
    ("of ideal", "of_ideal", ".1%"),
    ("GPU duty", "gpu_duty", ".4f"),
    ("idle ms", "idle_ms_median", ".1f"),
    ("p95", "idle_ms_p95", ".1f"),
    ("switches", "switches", "g"),
    ("CPU ms/task", "cpu_ms_per_task", ".1f"),
    ("RSS MB", "peak_rss_mb", ".0f"),
    ("calls/task", "calls_per_task", ".2f"),
    ("$/M tasks", "usd_per_million_tasks", ".2f"),
    ("late", "late_share", ".0%"),
    ("load", "load_before", ".1f"),
)
SAFETY: tuple[Column, ...] = (
    ("tasks", "tasks", "d"),
    ("done", "done", "d"),
    ("lost", "lost", "d"),
    ("unaccounted", "unaccounted", "d"),
    ("dup. renders", "duplicate_generations", "d"),
    ("dup. images", "duplicate_images", "d"),
    ("interrupted", "interrupted", "g"),
    ("deaths", "deaths", "d"),
    ("dead-lettered", "dead_lettered", "d"),
    ("left", "left", "d"),
    ("stop s", "stop_s", ".2f"),
    ("busy stop s", "stop_busy_s", ".2f"),
    ("in flight", "in_flight_after_stop", "d"),
)


def _show(row: Figures, key: str, form: str) -> str:
    value = row.get(key)
    return "-" if value is None else format(value, form)


def table(rows: Sequence[Figures], columns: Sequence[Column]) -> str:
    """Return a row for each of `rows`, without the columns in which nothing was measured."""
    used = [column for column in columns if any(row.get(column[1]) is not None for row in rows)]
    lines = [[title for title, _, _ in used]]
    lines += [[_show(row, key, form) for _, key, form in used] for row in rows]
    return _align(lines)


def calls_table(rows: Sequence[Figures]) -> str:
    """Return AWS calls per task, a line for each operation and a column for each row of figures."""
    operations = sorted({operation for row in rows for operation in row["by_operation"]})
    lines = [["calls per task", *(f"{row['scenario']}, {row['consumer']}" for row in rows)]]
    lines += [[name, *(f"{row['by_operation'].get(name, 0):.2f}" for row in rows)] for name in operations]
    return _align(lines)


def fates_table(rows: Sequence[Figures]) -> str:
    """Return what became of the bad messages, by kind; empty when there were none."""
    lines = [
        [row["scenario"], row["consumer"], kind, ", ".join(f"{count} {fate}" for fate, count in fates.items())]
        for row in rows
        for kind, fates in row["bad_fates"].items()
    ]
    return _align([["scenario", "consumer", "bad message", "where it is now"], *lines]) if lines else ""


def _align(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    drawn = ["| " + " | ".join(map(str.ljust, cells, widths)) + " |" for cells in lines]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(drawn)


def report(rows: Sequence[Figures]) -> str:
    """Return all tables of a session."""
    parts = [table(rows, IDENTITY + SPEED), table(rows, IDENTITY[:2] + SAFETY), calls_table(rows), fates_table(rows)]
    return "\n\n".join(part for part in parts if part)
