"""What can be made to go wrong in the stand-in, on demand: with a post, with a question after a job, with a job."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from scheduler.local.serving.faults import Fault, FaultBook


class PostFault(StrEnum):
    """What strikes a request for a job."""

    POST_ERROR = "post-error"
    """500, no job."""
    POST_GARBLED = "post-garbled"
    """202 with something that is not JSON; the job is taken."""
    POST_BUSY = "post-busy"
    """503, no job."""


class AskFault(StrEnum):
    """What strikes a question after a job."""

    ASK_ERROR = "ask-error"
    """500."""
    ASK_GARBLED = "ask-garbled"
    """200 with something that is not JSON."""


class JobFault(StrEnum):
    """What strikes a job at work, once `after_steps` of its steps are done."""

    FAIL = "fail"
    """It fails for a reason that nobody has seen before."""
    OOM = "oom"
    """It fails: out of GPU memory."""
    FATAL = "fatal"
    """It fails with a CUDA error."""
    LOSE = "lose"
    """The API forgets it, as after a restart; the work is not done."""
    HANG = "hang"
    """It stands still until the faults are cleared."""
    CRASH = "crash"
    """The process dies."""
    NO_RESULT = "no-result"
    """It is completed, and shows no result."""
    STRANGE = "strange"
    """Its status is one that clients do not know, until it ends well."""
    SLOW = "slow"
    """Every step takes `factor` times as long."""


class Faults:
    """A book for each moment at which something can strike."""

    def __init__(self) -> None:
        self._posts, self._asks, self._jobs = FaultBook(PostFault), FaultBook(AskFault), FaultBook(JobFault)

    def add(self, order: Mapping[str, Any]) -> None:
        """Take an order, as the control route gets it. Raises ValueError naming what is wrong."""
        kind = order.get("kind")
        if kind in list(PostFault):
            self._posts.add(order)
        elif kind in list(AskFault):
            self._asks.add(order)
        else:
            self._jobs.add(order)

    def of_post(self, prompt: str) -> PostFault | None:
        """Return what strikes a request, counted off."""
        fault = self._posts.take(prompt, 1)
        return None if fault is None else PostFault(fault.kind)

    def of_question(self, prompt: str) -> AskFault | None:
        """Return what strikes a question, counted off."""
        fault = self._asks.take(prompt, 1)
        return None if fault is None else AskFault(fault.kind)

    def of_job(self, prompt: str) -> Fault | None:
        """Return what strikes a job, counted off."""
        return self._jobs.take(prompt, 1)

    def hang(self, fault: Fault) -> None:
        """Return when `fault` has been cleared away."""
        self._jobs.hang(fault)

    def clear(self) -> None:
        """Forget all orders and let go of what hangs."""
        for book in (self._posts, self._asks, self._jobs):
            book.clear()

    def left(self) -> list[dict[str, Any]]:
        """Return the orders that can still strike."""
        return [fault for book in (self._posts, self._asks, self._jobs) for fault in book.left()]
