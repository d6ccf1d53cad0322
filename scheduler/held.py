"""What this process holds: every task between receive and delete, with its receipts, its state and why.

One lock, three topics to wait for. It does no I/O; the loops ask it what to do next and tell it what they did.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.pace import InHand, Needs, Pace, choose
from scheduler.domain.ports import Clock, PreparedRun
from scheduler.domain.service_times import ServiceTimes
from scheduler.domain.task import Claim, Message, Progress, Task


class State(StrEnum):
    """Where a held task is; the text of each is what `/health` shows."""

    WAITING = "waiting for an engine"
    PREPARING = "being claimed"
    READY = "next for the engine"
    RUNNING = "rendering"
    READING = "rendered, its answer being read and verified"
    FINISHING = "being stored and recorded"
    ANNOUNCING = "done, its end being told to others"
    DELETING = "done, its message being deleted"
    RETURNING = "going back to the queue"


UNSTARTED = frozenset({State.WAITING, State.PREPARING, State.READY})
CLAIMED = frozenset({State.PREPARING, State.READY, State.RUNNING, State.READING, State.FINISHING})
"""The states in which a task that has a claim needs it renewed."""
ENDED = frozenset({State.ANNOUNCING, State.DELETING})
DEEPEN_S = 0.2
"""How long a task at most waits for others of the loaded checkpoint to come in before it makes the engine switch."""
UNKNOWN_NEEDS = Needs()
Title = Callable[[str | None], str | None]
Choice = Callable[[Task], bool]
LOOK_AHEAD = 64
"""How many waiting tasks are looked at for the loaded checkpoint; bounds the work of one choice."""


@dataclass(slots=True, eq=False)
class Held:
    """One task in hand. Fields are changed by the loop that has the task, but for what the keepers write: the times of
    extension and renewal, progress, and the marks `is_lost` and `is_cancelled`. Receipts change under the registry's
    lock.

    Times ending in `_s` are the clock's monotonic seconds.
    """

    task: Task
    queue: int
    sent_at_s: float
    """When the first of its messages was sent, epoch seconds."""
    received_s: float
    work: float
    state: State
    since_s: float
    why: str = ""
    body_bytes: int = 0
    """Of the body that it came in."""
    messages: dict[str, Message] = field(default_factory=dict)
    extended_s: float = 0.0
    renewed_s: float = 0.0
    claim: Claim | None = None
    run: PreparedRun | None = None
    progress: Progress | None = None
    preview_key: str | None = None
    """Where its picture in the making lies, once one was shown."""
    job_id: str | None = None
    """By what the engine can be asked for the run, where it gives runs names."""
    wanted: str | None = None
    """The checkpoint that the task names, by whatever name."""
    is_lost: bool = False
    is_cancelled: bool = False
    reserved_bytes: int = 0
    queued_ms: int = 0
    prepare_ms: int = 0
    generate_ms: int = 0
    rendered_s: float = 0.0
    delete_attempts: int = 0
    failed_at_s: float | None = None
    """When its failure was written, epoch seconds: messages sent later ask for another run."""
    ran_for: str | None = None
    """The message that its run belongs to, where the format lets ids come again: others ask for runs of their own."""

    @property
    def receive_count(self) -> int:
        """How often SQS delivered its messages, at most."""
        return max((message.receive_count for message in list(self.messages.values())), default=1)

    def asks_again(self, message: Message) -> bool:
        """Tell whether one of its messages is not settled by its end, but asks for another run."""
        if self.ran_for is not None:
            return message.identity != self.ran_for
        return self.failed_at_s is not None and message.sent_at_s > self.failed_at_s


@dataclass(slots=True)
class Tally:
    """What this process has done since its start, for those who size the fleet; changed under the registry's lock."""

    received: int = 0
    """Tasks that SQS had delivered to nobody before."""
    finished: int = 0
    busy_s: float = 0.0
    """Seconds in which engines rendered."""
    waited_s: float = 0.0
    """How long the task received last had waited in its queue."""


class Signal:
    """Something that loops wait for, under the registry's lock; no change is slept through."""

    def __init__(self, lock: threading.Lock) -> None:
        self._condition = threading.Condition(lock)
        self.version = 0

    def signal(self) -> None:
        """Wake those who wait; called with the lock held, after the change."""
        self.version += 1
        self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float) -> None:
        """Wait until something has changed since `version` was `seen`; called without the lock."""
        with self._condition:
            self._condition.wait_for(lambda: self.version != seen, timeout_s)


class HeldTasks:
    """The registry, keyed by task id; safe for threads.

    Three signals, so that no loop is woken for what does not concern it: `room` for more work, a `choice` among
    waiting tasks, a task `offered` to an engine.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, Held] = {}
        self.lock = threading.Lock()
        self.room, self.choice, self.offered = Signal(self.lock), Signal(self.lock), Signal(self.lock)
        self.times = ServiceTimes()
        self.tally = Tally()
        self._is_deepening = False
        self.extending = threading.Lock()
        """Held while messages are being extended, so that who gives one back can wait for that."""

    def join(self, task_id: str, message: Message) -> bool:
        """Add a reference's delivery to its task if that is held; the same message again replaces its receipt."""
        with self.lock:
            held = self._tasks.get(task_id)
            if held is None or not held.task.by_reference:
                return False
            held.messages[message.message_id] = message
            return True

    def take_in(self, task: Task, message: Message, needs: Needs = UNKNOWN_NEEDS, *, body_bytes: int = 0) -> Held:
        """Hold `task`, or join its message to the one held. Raises Rejected when the id means another request."""
        with self.lock:
            held = self._tasks.get(task.task_id)
            if held is not None and held.task.fingerprint != task.fingerprint:
                raise Rejected(f"task_id {task.task_id} already belongs to another request", field="task_id")
            if held is None:
                self.tally.received += message.receive_count == 1
                self.tally.waited_s = max(0.0, self._clock.now() - message.sent_at_s)
                held = self._tasks[task.task_id] = Held(
                    task=task,
                    queue=message.queue,
                    sent_at_s=message.sent_at_s,
                    received_s=message.received_s,
                    work=needs.work,
                    body_bytes=body_bytes,
                    wanted=needs.checkpoint,
                    state=State.WAITING,
                    since_s=self._clock.monotonic(),
                    extended_s=message.received_s,
                )
            held.messages[message.message_id] = message
            self.choice.signal()
            return held

    def is_settled(self, task: Task) -> bool:
        """Tell whether a task is held whose record was seen to be its own, and never to be that of `task`, which has
        its id.

        That is shown by its claim, or by its end unless ids come again in this format.
        """
        with self.lock:
            held = self._tasks.get(task.task_id)
            if held is None:
                return False
            return not task.format.is_eks if held.state in ENDED else held.claim is not None

    def pick(self, title: Title, loaded: str | None, is_for: Choice = lambda _: True) -> Held | None:
        """Take the waiting task that should run next into PREPARING, or return None.

        Only such tasks come into question as `is_for` lets through. `title` gives the engine's title of a checkpoint's
        name; `loaded` is the title that will be loaded then. While more tasks are just coming in, one that would have
        to load another checkpoint waits for them a moment.
        """
        with self.lock:
            waiting = [held for held in self._tasks.values() if held.state is State.WAITING and is_for(held.task)]
            waiting = sorted(waiting, key=lambda held: held.queue)[:LOOK_AHEAD]
            index = choose(
                [(held.queue, title(held.wanted), held.received_s) for held in waiting],
                loaded=loaded,
                now=self._clock.monotonic(),
            )
            if index is None:
                return None
            first = waiting[index]
            if (
                self._is_deepening
                and title(first.wanted) != loaded
                and self._clock.monotonic() - first.received_s < DEEPEN_S
            ):
                return None
            self._move(first, State.PREPARING)
            self.room.signal()
            return first

    def move(self, held: Held, state: State, why: str = "") -> None:
        """Put `held` into another state, with a reason for people."""
        with self.lock:
            self._move(held, state, why)

    def deepening(self, *, is_so: bool) -> None:
        """Say whether a receive is under way that is likely to bring more at once."""
        with self.lock:
            if self._is_deepening is not is_so:
                self._is_deepening = is_so
                self.choice.signal()

    def take(self, held: Held, state: State, new: State) -> bool:
        """Move `held` from `state` to `new`; False when another loop took it meanwhile."""
        with self.lock:
            if held.state is not state:
                return False
            self._move(held, new)
            return True

    def _move(self, held: Held, state: State, why: str = "") -> None:
        held.state, held.why, held.since_s = state, why, self._clock.monotonic()
        if state is State.WAITING:
            self.choice.signal()

    def acknowledge(self, held: Held, messages: list[Message]) -> bool:
        """Forget deliveries that are dealt with; True when none is left and the task is no longer held."""
        with self.lock:
            for message in messages:
                if held.messages.get(message.message_id) is message:
                    del held.messages[message.message_id]
            if not held.messages:
                self._drop(held)
            return not held.messages

    def drop(self, held: Held) -> None:
        """Forget the task and its receipts, touching no message: it is no longer ours."""
        with self.lock:
            held.messages.clear()
            self._drop(held)

    def _drop(self, held: Held) -> None:
        if self._tasks.get(held.task.task_id) is held:
            del self._tasks[held.task.task_id]

    def all(self) -> list[Held]:
        """Return everything held, oldest first."""
        with self.lock:
            return list(self._tasks.values())

    def receipts(self, held: Held) -> list[Message]:
        """Return the newest delivery of each of its messages."""
        with self.lock:
            return list(held.messages.values())

    def in_hand(
        self, pace: Pace, title: Title, loaded: Iterable[str | None], is_for: Choice = lambda _: True
    ) -> InHand:
        """Return how much there is to render yet, for engines of one kind.

        They render at `pace`, call checkpoints by `title`, have the titles `loaded` and run what `is_for` says.
        """
        with self.lock:
            now = self._clock.monotonic()
            seconds, waiting, unstarted, titles = 0.0, 0, 0, set(loaded) - {None}
            for held in filter(lambda held: is_for(held.task), self._tasks.values()):
                if held.state in UNSTARTED or held.state is State.RUNNING:
                    expected = pace.expected_s(held.work) or 0.0
                    done = now - held.since_s if held.state is State.RUNNING else 0.0
                    seconds += max(0.0, expected - done)
                    waiting += held.state is State.WAITING
                    unstarted += held.state in UNSTARTED
                    titles.add(title(held.wanted))
            return InHand(seconds=seconds, waiting=waiting, unstarted=unstarted, is_mixed=len(titles) > 1)

    def body_bytes(self) -> int:
        """Return how large the bodies of everything held were."""
        with self.lock:
            return sum(held.body_bytes for held in self._tasks.values())

    def longest_end_s(self) -> float:
        """Return for how long the oldest result has been waiting to be stored and recorded, 0 without any."""
        with self.lock:
            since = [held.since_s for held in self._tasks.values() if held.state is State.FINISHING]
            return self._clock.monotonic() - min(since) if since else 0.0

    def describe(self) -> list[dict[str, Any]]:
        """Return what is held, for people: task, since when, in which state and why."""
        now = self._clock.monotonic()
        return [_description(held, now) for held in self.all()]


def _description(held: Held, now: float) -> dict[str, Any]:
    claim, progress = held.claim, held.progress  # read once: their loop may take them away meanwhile
    return {
        "task_id": held.task.task_id,
        "state": held.state.name.lower(),
        "why": held.why or held.state.value,
        "held_s": round(now - held.received_s, 1),
        "in_state_s": round(now - held.since_s, 1),
        "messages": len(held.messages),
        "runs": claim.runs if claim else None,
        "progress": progress.percent if progress else None,
    }
