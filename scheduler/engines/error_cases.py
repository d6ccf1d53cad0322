"""How answers that are no pictures are sorted, whatever the engine: rows of a table,
and words that all of them share; pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scheduler.domain.errors import (
    Counts,
    EngineDown,
    EngineLost,
    Fatal,
    OutOfMemory,
    Rejected,
    SchedulerError,
    Transient,
)

MAX_WORDS = 500
"""Characters of the engine's own words that are kept."""
_MOST_READ = 10_000
"""Characters at each end that are looked through for the words of a row: a traceback names its error last."""


class Verdict(StrEnum):
    """What becomes of the task, in the words of the table."""

    REJECTED = "Rejected"
    TRANSIENT = "Transient, a run spent"
    TRY = "Transient, a try spent"
    FREE = "Transient, no run spent"
    OUT_OF_MEMORY = "OutOfMemory"
    FATAL = "Fatal"
    DOWN = "EngineDown"
    LOST = "EngineLost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer taken apart: the exception's class and what it said, where there are such.

    `is_foreign` tells that the API's own code did not write it: a wrong path, or another server.
    """

    status: int
    error: str
    said: str
    detail: Any = None
    is_foreign: bool = False

    @property
    def words(self) -> str:
        """The engine's own words, bounded."""
        return (f"{self.error}: {self.said}" if self.error and self.said else self.error or self.said)[:MAX_WORDS]

    @property
    def ends(self) -> str:
        """What it said, without the middle of something endless."""
        is_short = len(self.said) <= 2 * _MOST_READ
        return self.said if is_short else f"{self.said[:_MOST_READ]}\n{self.said[-_MOST_READ:]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row. It applies when the status, the exception's class and the text all fit; None fits all.

    `foreign` rows are only for answers that the API's own code did not write.
    """

    answer: str
    verdict: Verdict
    why: str
    says: str
    statuses: frozenset[int] | None = None
    errors: frozenset[str] | None = None
    text: re.Pattern[str] | None = None
    foreign: bool = False

    def fits(self, refusal: Refusal) -> bool:
        """Tell whether the row speaks of this answer."""
        return (
            (self.statuses is None or refusal.status in self.statuses)
            and (self.errors is None or refusal.error in self.errors)
            and (refusal.is_foreign or not self.foreign)
            and (self.text is None or self.text.search(refusal.ends) is not None)
        )


def any_of(*patterns: str) -> re.Pattern[str]:
    """Return a pattern that finds any of these, in capitals or not."""
    return re.compile("|".join(patterns), re.IGNORECASE)


def error_of(case: Case, refusal: Refusal, *, field: str | None, where: str = "") -> SchedulerError:
    """Return the error that a row makes of an answer; `where` is said before the engine's own words."""
    words = refusal.words or f"status {refusal.status}, no words"
    message = f"{case.says}: {where}{words}"
    match case.verdict:
        case Verdict.REJECTED:
            return Rejected(message, field=field, engine=words)
        case Verdict.OUT_OF_MEMORY:
            return OutOfMemory(message, engine=words)
        case Verdict.FATAL:
            return Fatal(message, engine=words)
        case Verdict.LOST:
            return EngineLost(f"{case.says} ({refusal.status})", engine=words)
        case Verdict.DOWN:
            return EngineDown(f"{case.says} ({refusal.status})", engine=words)
        case Verdict.TRANSIENT:
            return Transient(message, counts=Counts.RUN, engine=words)
        case Verdict.TRY:
            return Transient(message, counts=Counts.TRY, engine=words)
        case Verdict.FREE:
            return Transient(message, counts=Counts.NOTHING, engine=words)


def case_of(refusal: Refusal, cases: Sequence[Case]) -> Case:
    """Return the row of a table that speaks of this answer; the last row of each speaks of all."""
    return next(case for case in cases if case.fits(refusal))


OUT_OF_MEMORY = any_of(r"out ?of ?memory", r"not enough memory", r"can't allocate memory", r"_ALLOC_FAILED")
BROKEN_MODEL_FILE = any_of(
    r"model failed to load",
    r"error while deserializing header",
    r"PytorchStreamReader failed",
    r"No such file or directory.*\.(safetensors|ckpt|pth?|vae)\b",
    r"FileNotFoundError.*\.(safetensors|ckpt|pth?|vae)\b",
)
BROKEN_GPU = any_of(
    r"\bcuda", r"cudnn", r"cublas", r"\bnvidia", r"\bdriver\b", r"device-side", r"no kernel image", r"\bHIP\b"
)
FULL_DISK = any_of(r"No space left on device", r"Disk quota exceeded")
MISFIT = any_of(
    r"Expected \d+D",
    r"shapes cannot be multiplied",
    r"Sizes of tensors must match",
    r"The size of tensor",
    r"bad number of images passed",
    r"is invalid for input of size",
    r"negative dimension",
    r"Given groups=",
    r"Kernel size can't be greater",
    r"Input and output sizes should be greater than 0",
    r"cannot reshape tensor",
    r"Output size is too small",
)
"""Shapes and sizes that do not go together."""

BEFORE_THE_ENGINE = (
    Case(
        answer="504",
        verdict=Verdict.LOST,
        why="A proxy before the engine gave up waiting; the engine may well be at the task still, and a run is spent.",
        says="the proxy before the engine had no answer from it",
        statuses=frozenset({504}),
    ),
    Case(
        answer="401, 403, 405, 429, 502, 503, or a redirect",
        verdict=Verdict.DOWN,
        why="Something else answers at this address, or a proxy before an engine that is down, starting or guarded.",
        says="what answers at the engine's address takes no requests",
        statuses=frozenset({301, 302, 303, 307, 308, 401, 403, 405, 429, 502, 503}),
    ),
)
"""Answers of what stands before an engine, or in its place."""
