"""Waiting for a condition with a deadline, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(check: Callable[[], T], deadline_s: float = 30.0, *, what: str = "", every_s: float = 0.05) -> T:
    """Return the first true value of `check`; fail with the last one when `deadline_s` has passed."""
    give_up_s = time.monotonic() + deadline_s
    while not (value := check()):
        assert time.monotonic() < give_up_s, f"{what or 'it'} did not come about in {deadline_s:g} s: {value!r}"
        time.sleep(every_s)
    return value
