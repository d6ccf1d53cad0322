"""Who takes part in a comparison: our policies as `[autoscaling]` sets them, and the rivals,
each with its habits; pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler import config_sections
from scheduler.autoscale.policies import choice
from scheduler.autoscale.snapshot import Policy
from scheduler.config_sections import POLICIES, Autoscaling
from scheduler.domain.errors import ConfigError
from scheduler.simulate.model import Arrival, Manner, Outcome, Terms
from scheduler.simulate.rivals import Buildkite, Habits, Keda, Rival, Static, TargetTracking, rivals
from scheduler.simulate.world import simulate

PRESETS = tuple(f"backlog:{preset}" for preset in config_sections.PRESETS)
OURS = (*PRESETS, *(name for name in POLICIES if name != "backlog"))
STATIC = re.compile(r"static-([1-9]\d{0,3})")
USUAL_STATIC = "static-4"
STATIC_SIZES = (1, 2, 4, 8, 12, 16)
KEPT_SIZES = (1, 2, 4, 8, 12)
TARGET_WAITS_S = (15.0, 30.0, 60.0, 120.0, 240.0)
KEEPS = f"{PRESETS[-1]}, workers kept"
"""The promptest of ours, which keeps some workers when there is no work."""
LATE_WORTHS_S = (5.0, 20.0, 45.0, 150.0, 600.0, 1200.0, 5000.0, 10_000.0, 100_000.0, 1_000_000.0)
"""Between and beyond the presets'."""
BY_WORTH = "backlog, late_worth_s"
SWEPT = ("late_worth_s", "target_wait_s", "min_capacity")
"""What of ours a sweep varies beyond the preset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A policy under the name it is shown with, in the world as it is for it.

    `keys` are what `[autoscaling]` has to say to get it; None for what this project does not run.
    """

    name: str
    policy: Policy
    terms: Terms
    family: str
    """What it is one setting of."""
    keys: Mapping[str, Any] | None = field(default=None)

    def run(self, arrivals: Sequence[Arrival], *, keep_samples: bool = False) -> Outcome:
        """Return what comes of it."""
        outcome = simulate(arrivals, self.policy, self.terms, keep_samples=keep_samples)
        return replace(outcome, policy=self.name)

    def bounded(self, max_capacity: int) -> Contender:
        """Return the same with another bound."""
        keys = None if self.keys is None else {**self.keys, "max_capacity": max_capacity}
        return replace(self, terms=replace(self.terms, max_capacity=max_capacity), keys=keys)


def contender(name: str, terms: Terms, settings: Mapping[str, Any]) -> Contender:
    """Return the contender of that name; `settings` are the keys of `[autoscaling]` that were given.

    Our policies may be followed by ``:PRESET`` where they have one. Raises ConfigError for another name.
    """
    policy, _, preset = name.partition(":")
    if policy in POLICIES and (not preset or name in PRESETS):
        named = {"preset": preset, "late_worth_s": None} if preset else {}
        return _ours(name, terms, settings, {"policy": policy} | named)
    if static := STATIC.fullmatch(name):
        return _static(int(static[1]), terms)
    rival = rivals().get(name)
    if rival is None:
        known = ", ".join((*POLICIES, *PRESETS, *rivals(), "static-N"))
        raise ConfigError([f"policy {name!r} is not known: expected one of {known}"])
    return _theirs(name, rival, terms, family=name)


def everybody(terms: Terms, settings: Mapping[str, Any]) -> list[Contender]:
    """Return our policies and all rivals."""
    return [contender(name, terms, settings) for name in (*OURS, USUAL_STATIC, *rivals())]


def sweep(terms: Terms, settings: Mapping[str, Any]) -> list[Contender]:
    """Return ours and the rivals, each with its own knob turned from cheap to prompt."""
    promptest = {**settings, "target_wait_s": TARGET_WAITS_S[0]}
    found = [
        replace(contender(name, terms, {**settings, "target_wait_s": wait_s}), name=f"{name}, {wait_s:g} s")
        for name in PRESETS
        for wait_s in TARGET_WAITS_S
    ]
    found += [
        replace(
            _ours(f"backlog, worth {worth_s:g} s", terms, settings, {"policy": "backlog", "late_worth_s": worth_s}),
            family=BY_WORTH,
        )
        for worth_s in LATE_WORTHS_S
    ]
    found += [
        replace(
            contender(PRESETS[-1], replace(terms, min_capacity=least), promptest),
            name=f"{KEEPS}, {least}",
            family=KEEPS,
        )
        for least in KEPT_SIZES
        if terms.min_capacity < least <= terms.max_capacity
    ]
    found += [
        _ours(f"threshold above {number}", terms, settings, {"policy": "threshold", "scale_out_threshold": number})
        for number in (0, 2, 5, 10)
    ]
    found += [contender(name, terms, settings) for name in ("step", "idle-stop")]
    found += [_static(size, terms) for size in STATIC_SIZES if size <= terms.max_capacity]
    return [*found, *(_theirs(name, rival, terms, family=family) for name, family, rival in _turned())]


def _turned() -> Iterator[tuple[str, str, Rival]]:
    blind = Habits(ends_busy=True)
    for wait_s in (15.0, 60.0, 240.0):
        habits = Habits(ends_busy=True, counts_later_s=60.0)
        rival = Rival(policy=TargetTracking(target_wait_s=wait_s), habits=habits)
        yield f"target-tracking, {wait_s:g} s", "target-tracking", rival
    for length in (1, 2, 5):
        yield f"keda-{length}", "keda", Rival(policy=Keda(queue_length=length), habits=blind)
    for hold_s in (120.0, 300.0, 600.0, 1200.0, 2400.0):
        gentle = Keda(queue_length=1, stabilization_s=hold_s, cooldown_s=hold_s)
        yield f"keda-1-gentle, {hold_s:g} s", "keda-1-gentle", Rival(policy=gentle)
        habits = Habits(idle_exit_s=hold_s)
        yield f"buildkite, {hold_s:g} s", "buildkite", Rival(policy=Buildkite(), habits=habits)


def _ours(name: str, terms: Terms, settings: Mapping[str, Any], keys: Mapping[str, Any]) -> Contender:
    policy = str(keys["policy"])
    given = {key: value for key, value in {**settings, **keys}.items() if key in choice.KEYS[policy]}
    if settings.get("late_worth_s") is None and given.get("late_worth_s") is None:
        given.pop("late_worth_s", None)  # nothing has to be taken back
    bounds = {"min_capacity": terms.min_capacity, "max_capacity": terms.max_capacity}
    return Contender(
        name=name,
        policy=choice.policy(Autoscaling().model_copy(update={"policy": policy, **given})),
        terms=terms,
        family=name.partition(",")[0] if policy == "backlog" else policy,
        keys={"policy": policy, **given, **bounds},
    )


def _static(size: int, terms: Terms) -> Contender:
    """Return a fleet of that size, or as large as is allowed: whatever the policy, conf.ini says it by its bounds."""
    capacity = min(size, terms.max_capacity)
    return Contender(
        name=f"static-{size}",
        policy=Static(capacity=capacity),
        terms=replace(terms, min_capacity=capacity, max_capacity=capacity),
        family="static",
        keys={"policy": POLICIES[0], "min_capacity": capacity, "max_capacity": capacity},
    )


def _theirs(name: str, rival: Rival, terms: Terms, *, family: str) -> Contender:
    habits = rival.habits
    own = replace(
        terms,
        manner=Manner.BLIND if habits.ends_busy else Manner.CONSENT,
        idle_exit_s=habits.idle_exit_s,
        cloudwatch_s=terms.cloudwatch_s + habits.counts_later_s,
    )
    return Contender(name=name, policy=rival.policy, terms=own, family=family)
