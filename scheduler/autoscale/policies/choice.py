"""From settings to a policy."""

from __future__ import annotations

from typing import Any

from scheduler.autoscale.policies.backlog import LATE_WORTH_S, Backlog
from scheduler.autoscale.policies.idle_stop import IdleStop
from scheduler.autoscale.policies.step import Step
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.snapshot import Policy

NAMES = ("backlog", "threshold", "step", "idle-stop")
PRESETS = tuple(LATE_WORTH_S)


def policy(
    name: str,
    *,
    target_wait_s: float = 60.0,
    preset: str = "balanced",
    late_worth_s: float | None = None,
    scale_out_threshold: int = 5,
    scale_out_step: int = 1,
    scale_in_step: int = 1,
    cooldown_s: float = 300.0,
    steps: tuple[tuple[int, int], ...] = ((10, 1), (50, 2), (100, 3)),
    idle_stop_minutes: float = 30.0,
    **_others: Any,
) -> Policy:
    """Return the policy of that name, with those of the settings of `[autoscaling]` that it knows.

    `late_worth_s` takes the place of the preset's. The section's other keys may be passed too. Raises ValueError for an unknown name or preset.
    """
    match name:
        case "backlog":
            if preset not in LATE_WORTH_S:
                raise ValueError(f"expected one of {', '.join(PRESETS)} as preset, not {preset!r}")
            worth_s = LATE_WORTH_S[preset] if late_worth_s is None else late_worth_s
            return Backlog(target_wait_s=target_wait_s, late_worth_s=worth_s)
        case "threshold":
            return Threshold(
                scale_out_threshold=scale_out_threshold,
                scale_out_step=scale_out_step,
                scale_in_step=scale_in_step,
                cooldown_s=cooldown_s,
            )
        case "step":
            return Step(steps=steps, scale_in_step=scale_in_step, cooldown_s=cooldown_s)
        case "idle-stop":
            return IdleStop(idle_stop_minutes=idle_stop_minutes)
        case _:
            raise ValueError(f"expected one of {', '.join(NAMES)} as policy, not {name!r}")
