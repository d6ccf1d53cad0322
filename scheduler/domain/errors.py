"""The one tree of errors; which branch an error is on decides what happens to the task.

::

    SchedulerError
    ├── Rejected              the task is wrong: it fails now, in these words
    │   ├── DeadlineExceeded  it ran longer than `task_deadline_s` and was interrupted
    │   └── Unstorable        AWS will never take what it makes: a record over 400 KB
    ├── Transient             the world is wrong: the message goes back, with back-off
    │   ├── EngineDown        the engine did not take the request: nothing was rendered
    │   ├── EngineLost        the connection broke after the request was sent: a run was spent
    │   ├── EngineHung        no answer 30 s after an interrupt: a run was spent, the engine needs a restart
    │   ├── BadResult         the engine answered 200 with something that is not what was asked
    │   └── Unavailable       AWS did not answer, or throttled: nothing is known to have happened
    │       └── AccessDenied  AWS refused: credentials or policy, for a person to mend
    ├── OutOfMemory           the GPU was too small for this batch: freed and tried once at batch size 1
    ├── Fatal                 this host is wrong: it takes no more work until it is proved well
    ├── Interrupted           we stopped the run ourselves: on cancel, stop, or a lost claim
    ├── LeaseLost             another worker holds the claim now
    └── ConfigError           the configuration is wrong: the only error that ends the daemon
"""

from __future__ import annotations

from enum import StrEnum


class SchedulerError(Exception):
    """The root; nothing raises it directly."""


class Rejected(SchedulerError):
    """The task can never succeed as it is.

    `field` names what is wrong in the client's own terms (``payload.steps``), `engine` holds the engine's own
    words when it was the engine that refused.
    """

    kind = "rejected"

    def __init__(self, message: str, *, field: str | None = None, engine: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.engine = engine


class DeadlineExceeded(Rejected):
    """The task ran for its whole deadline, was interrupted, and the engine obeyed."""

    kind = "deadline"


class Unstorable(Rejected):
    """AWS refuses the write for what it is, not for now: the item is too large, or an attribute has another type."""

    kind = "unstorable"


class Counts(StrEnum):
    """What a Transient failure costs the task."""

    RUN = "run"
    """The engine really ran: `runs` stays as the claim counted it."""
    TRY = "try"
    """The task itself made the preparation fail: `tries` grows."""
    NOTHING = "nothing"
    """A fault of the host or the world: the run that the claim counted is refunded."""


class Transient(SchedulerError):
    """It may succeed later, or elsewhere. `field` names what of the task cannot be had, where that is the cause."""

    kind = "transient"
    counts = Counts.NOTHING

    def __init__(
        self, message: str, *, counts: Counts | None = None, engine: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.engine = engine
        self.field = field
        if counts is not None:
            self.counts = counts


class EngineDown(Transient):
    """The engine refused the connection or is still starting; it never saw the request."""

    kind = "engine-down"


class EngineBusy(Transient):
    """The engine was at others' work all the time that the task may take; it began nothing of ours."""

    kind = "engine-busy"


class EngineLost(Transient):
    """The connection closed after the request was sent: the engine died under it."""

    kind = "engine-lost"
    counts = Counts.RUN


class EngineHung(Transient):
    """The engine did not stop within the time that an interrupt may take."""

    kind = "engine-hung"
    counts = Counts.RUN


class BadResult(Transient):
    """A silent failure behind a 200: fewer images than asked, another model, an image that cannot be read."""

    kind = "bad-result"
    counts = Counts.RUN


class Unavailable(Transient):
    """An AWS call failed in a way that says nothing about the task."""

    kind = "aws-unavailable"


class AccessDenied(Unavailable):
    """AWS refused the call: missing or expired credentials, or a policy; a person must act."""

    kind = "aws-denied"


class OutOfMemory(SchedulerError):
    """The engine ran out of GPU memory; `engine` holds its words."""

    kind = "out-of-memory"

    def __init__(self, message: str, *, engine: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.engine = engine


class Fatal(SchedulerError):
    """The host cannot render: a broken GPU, driver or checkpoint file. A run was spent."""

    kind = "fatal"

    def __init__(self, message: str, *, engine: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.engine = engine
        self.field: str | None = None


class Interrupted(SchedulerError):
    """The run was ended by us; whatever the engine returned is not a result."""


class LeaseLost(SchedulerError):
    """The record names another owner or attempt: the task is no longer ours to touch."""


class ConfigError(SchedulerError):
    """Everything that is wrong with the configuration, one line for each error in `problems`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
