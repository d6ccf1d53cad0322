"""A queue in memory, with visibility, receipts and a place for what was refused."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fakes.faults import Faults
from scheduler.domain.errors import Rejected, Unavailable
from scheduler.domain.ports import Clock
from scheduler.domain.task import Message


@dataclass(slots=True)
class Lying:
    """A message as it lies in the queue; visible from `visible_s` on (the clock's monotonic seconds)."""

    message_id: str
    body: str
    sent_at_s: float
    visible_s: float
    receive_count: int = 0
    receipt: str = ""


class FakeQueue:
    """The `MessageQueue` port; visibility follows `clock`, which the test owns.

    A receive that finds nothing waits in real time, at most `longest_wait_s` whatever it is asked for, so that loops
    under test do not spin and do not hang. As in SQS a superseded receipt is refused.
    """

    def __init__(self, clock: Clock, *, index: int = 0, lease_s: int = 30, longest_wait_s: float = 0.05) -> None:
        self._clock = clock
        self._index = index
        self._longest_wait_s = longest_wait_s
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._lying: dict[str, Lying] = {}
        self.lease_s = lease_s
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.refused: list[tuple[Message, Rejected]] = []
        self.deleted: list[str] = []
        self.delays: list[tuple[str, float]] = []
        """(message id, delay) of everything given back."""

    def send(self, body: str, *, sent_at_s: float | None = None) -> str:
        """Put a message in; return its id. It is said to be sent now unless told otherwise."""
        with self._changed:
            message_id = f"message-{self._index}-{next(self._numbers)}"
            sent = self._clock.now() if sent_at_s is None else sent_at_s
            self._lying[message_id] = Lying(message_id, body, sent, self._clock.monotonic())
            self._changed.notify_all()
            return message_id

    def receive(self, most: int, *, wait_s: int) -> list[Message]:
        with self.faults.around("receive"):
            until_s = time.monotonic() + min(float(wait_s), self._longest_wait_s)
            with self._changed:
                while not (found := self._visible()[: min(most, 10)]):
                    left_s = until_s - time.monotonic()
                    if left_s <= 0:
                        return []
                    self._changed.wait(min(left_s, 0.005))  # the clock under test may move without telling us
                return [self._hand_out(lying) for lying in found]

    def _visible(self) -> list[Lying]:
        return [lying for lying in self._lying.values() if lying.visible_s <= self._clock.monotonic()]

    def _hand_out(self, lying: Lying) -> Message:
        lying.receive_count += 1
        lying.receipt = f"{lying.message_id}/{lying.receive_count}"
        lying.visible_s = self._clock.monotonic() + self.lease_s
        return Message(
            queue=self._index,
            message_id=lying.message_id,
            receipt=lying.receipt,
            body=lying.body,
            sent_at_s=lying.sent_at_s,
            receive_count=lying.receive_count,
            received_s=self._clock.monotonic(),
        )

    def _named(self, receipt: str) -> Lying | None:
        lying = self._lying.get(receipt.rpartition("/")[0])
        return lying if lying is not None and lying.receipt == receipt else None

    def extend(self, receipts: Sequence[str]) -> list[str]:
        with self.faults.around("extend"):
            return self._change(receipts, float(self.lease_s))

    def give_back(self, receipts: Sequence[str], *, delay_s: float) -> list[str]:
        with self.faults.around("give_back"):
            self.delays += [(receipt.rpartition("/")[0], delay_s) for receipt in receipts]
            return self._change(receipts, delay_s)

    def _change(self, receipts: Sequence[str], timeout_s: float) -> list[str]:
        unknown = []
        with self._changed:
            for receipt in receipts:
                lying = self._named(receipt)
                if lying is None:
                    unknown.append(receipt)
                else:
                    lying.visible_s = self._clock.monotonic() + timeout_s
            self._changed.notify_all()
        return unknown

    def delete(self, receipts: Sequence[str]) -> list[str]:
        with self.faults.around("delete"), self._changed:
            unknown = []
            for receipt in receipts:
                lying = self._named(receipt)
                if lying is None:
                    unknown.append(receipt)
                else:
                    del self._lying[lying.message_id]
                    self.deleted.append(lying.message_id)
            return unknown

    def refuse(self, message: Message, why: Rejected) -> None:
        with self.faults.around("refuse"):
            self.refused.append((message, why))
            if self.delete([message.receipt]):
                raise Unavailable(f"deleting the refused message {message.message_id} was not acknowledged")

    @property
    def bodies(self) -> list[str]:
        """The bodies of all messages that lie in the queue, hidden ones too."""
        with self._changed:
            return [lying.body for lying in self._lying.values()]

    @property
    def hidden(self) -> list[str]:
        """The ids of the messages that nobody can receive now."""
        with self._changed:
            return [lying.message_id for lying in self._lying.values() if lying.visible_s > self._clock.monotonic()]
