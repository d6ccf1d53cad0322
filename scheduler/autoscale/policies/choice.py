"""From the settings of `[autoscaling]` to a policy."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.autoscale.policies.backlog import LATE_WORTH_S, Backlog
from scheduler.autoscale.policies.idle_stop import IdleStop
from scheduler.autoscale.policies.step import Step
from scheduler.autoscale.policies.threshold import Threshold
from scheduler.autoscale.snapshot import Policy
from scheduler.config_sections import Autoscaling

KEYS = {
    "backlog": ("preset", "late_worth_s", "target_wait_s"),
    "threshold": ("scale_out_threshold", "scale_out_step", "scale_in_step", "cooldown_s"),
    "step": ("steps", "scale_in_step", "cooldown_s"),
    "idle-stop": ("idle_stop_minutes",),
}
"""Which keys of `[autoscaling]` each policy is made from."""


def policy(section: Autoscaling) -> Policy:
    """Return the policy that the section names."""
    return _MAKERS[section.policy](**{key: getattr(section, key) for key in KEYS[section.policy]})


def _backlog(*, preset: str, late_worth_s: float | None, target_wait_s: float) -> Policy:
    worth_s = LATE_WORTH_S[preset] if late_worth_s is None else late_worth_s
    return Backlog(target_wait_s=target_wait_s, late_worth_s=worth_s)


_MAKERS: dict[str, Callable[..., Policy]] = {
    "backlog": _backlog,
    "threshold": Threshold,
    "step": Step,
    "idle-stop": IdleStop,
}
