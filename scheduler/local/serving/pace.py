"""How long things take at a stand-in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """One sampler step, whatever the batch, and one change of weights."""

    seconds_per_step: float = 0.05
    switch_seconds: float = 2.0
