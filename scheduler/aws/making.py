"""What the makers of resources share: the account, what they may change, and how they tell what they did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from scheduler.aws.addresses import Account
from scheduler.aws.operator_clients import OperatorClients

POLL_S = 2.0
WAIT_S = 600.0
"""How long a table or an index may take to become active; a new one takes seconds, a big table's index hours."""


class State(StrEnum):
    """What became of one resource."""

    CREATED = "created"
    EXISTS = "exists"
    ADDED = "added"
    FIXED = "fixed"
    DIFFERS = "differs"
    REFUSED = "refused"
    FAILED = "failed"


CHANGES = frozenset({State.CREATED, State.ADDED, State.FIXED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done about one resource, or would be done when it `is_rehearsed`."""

    resource: str
    state: State
    detail: str = ""
    is_rehearsed: bool = False

    @property
    def told(self) -> str:
        """The state as people and programs read it."""
        return f"would be {self.state}" if self.is_rehearsed and self.state in CHANGES else self.state.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """The account that resources are made in, and the terms.

    When it `is_rehearsed` nothing is changed; when it `fixes`, a difference that can be mended in place is mended.
    `say` is told what is being waited for, `pause` waits (seconds).
    """

    clients: OperatorClients
    account: Account
    is_rehearsed: bool = False
    fixes: bool = False
    wait_s: float = WAIT_S
    pause: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda _: None

    def outcome(self, resource: str, state: State, detail: str = "") -> Outcome:
        """Return an outcome under these terms."""
        return Outcome(resource=resource, state=state, detail=detail, is_rehearsed=self.is_rehearsed)
