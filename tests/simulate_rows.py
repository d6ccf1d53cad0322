"""Rows of a comparison, made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scheduler.simulate.contenders import contender
from scheduler.simulate.model import Terms
from scheduler.simulate.row import Row

PLAIN = Terms(boot_sigma=0.0, reclaims_per_hour=0.0, counts_age_s=(0.0, 0.0), switch_s=0.0, max_capacity=4)


def row(name: str, gpu_hours: float, late_share: float, **others: Any) -> Row:
    template = Row(
        policy=name,
        contender=contender("backlog", PLAIN, {}),
        family="backlog",
        gpu_hours=gpu_hours,
        cost_usd=gpu_hours,
        month_usd=gpu_hours,
        x_oracle=1.0,
        busy_share=0.5,
        wait_p50_s=0.0,
        wait_p95_s=0.0,
        wait_p99_s=0.0,
        late_share=late_share,
        killed=0,
        interrupted=0,
        unserved=0,
        actions=0,
        peak=1,
    )
    return replace(template, **others)
