"""What the stages of a task need from the world, named by need; adapters and fakes implement these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scheduler.domain.claiming import Refused
from scheduler.domain.errors import Counts, Rejected
from scheduler.domain.pace import Needs
from scheduler.domain.task import Claim, EngineImage, Failure, Message, Progress, Result, StoredImage, Task


class Clock(Protocol):
    """Time, passed in so that tests and simulations own it."""

    def now(self) -> float:
        """Return the wall clock, epoch seconds."""

    def monotonic(self) -> float:
        """Return seconds that never jump and go on while the host sleeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A task made ready for the engine, beside the engine thread: encoded once, checked as far as can be.

    `image_count` is how many images the answer must hold, None where only the engine knows; `checkpoint` is the
    engine's own title of the model they must come from, `sampler` the name that the answer must show; None means that
    any will do. `estimate_bytes` bounds what the answer may take in memory. `resume_job_id` is what an engine with jobs
    called the one that it was given for this very task before, and that may still run there.
    """

    task: Task
    path: str
    body: bytes
    image_count: int | None
    checkpoint: str | None
    sampler: str | None
    estimate_bytes: int
    warnings: tuple[str, ...] = ()
    resume_job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture in the making, small, as the engine sends it."""

    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A decoded answer: as many images as asked, each verified, in the order of their seeds.

    Among `images` may be videos and sounds, where the engine makes such. `result_uris` (``s3://bucket/key``) are the
    results of an engine that stores them itself; there are no `images` then.
    """

    images: tuple[EngineImage, ...]
    checkpoint: str | None
    sampler: str | None
    warnings: tuple[str, ...]
    result_uris: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InputImage:
    """A picture that a task named by its address: the bytes as they came, verified, with what their header says."""

    data: bytes
    media_type: str
    extension: str
    width: int
    height: int
    sha256: str


class Inputs(Protocol):
    """What tasks name by address (``http://``, ``https://``, ``s3://``) instead of sending it along; safe for threads.

    `field` is what an error calls the address (``payload.init_images.0``). Raises Rejected for what may not be gone
    to, is not there, is not what was asked for, or is too large; Transient that counts a try for what may be had
    later; Unavailable when it is AWS or this host's access to it that fails.
    """

    def image(self, address: str, *, field: str) -> InputImage:
        """Return the picture at `address`, proved whole."""

    def read(self, address: str, *, field: str, max_bytes: int) -> bytes:
        """Return what lies at `address`, whatever it is."""


class Answer(Protocol):
    """A good answer whose first byte has come: the engine is free, the body is still to be read."""

    def output(self) -> Output:
        """Read, decode and verify; called off the engine thread.

        Raises BadResult for a silent failure, EngineLost when the body breaks off, Rejected when the engine
        quietly did something other than what the task asked and always will.
        """


class Engine(Protocol):
    """One GPU's image server. `generate` and `golden` take as long as a render; only the engine's own thread
    calls them, one at a time. Everything else may be called from other threads meanwhile.
    """

    name: str
    runtimes: frozenset[str]
    """The names by which tasks ask for it, never empty; case matters."""

    def can_run(self, task: Task) -> bool:
        """Tell whether it is of the kind that runs such tasks, whatever runtime they name."""

    def needs(self, task: Task) -> Needs:
        """Return which checkpoint and how much work a task asks for.
        Asks nobody and raises nothing, whatever it holds.
        """

    def probe(self) -> None:
        """Raise EngineDown unless the engine can take a request now; refresh what is known of its models."""

    def title(self, checkpoint: str | None) -> str | None:
        """Return the engine's title for a checkpoint's name (of any kind), from what is known, without asking.

        None stands for the default checkpoint. An unknown name is returned as it is.
        """

    def loaded(self) -> str | None:
        """Return the title of the checkpoint whose weights are loaded, as far as known."""

    def prepare(self, task: Task, *, seed_key: str) -> PreparedRun:
        """Check and encode a task. `seed_key` (task id and run number) fixes a random seed.

        Raises Rejected naming the field, or EngineDown when the engine must be asked and does not answer.
        """

    def smaller(self, run: PreparedRun) -> PreparedRun:
        """Return a run for the same pictures, one at a time (batch size 1)."""

    def generate(
        self, run: PreparedRun, *, deadline_s: float, on_sent: Callable[[str | None], None] | None = None
    ) -> Answer:
        """Post once; return when a good answer begins. Blocks for the whole render.

        `on_sent` is called on this thread when the request is with the engine, before the wait for its answer, with
        the id by which the engine can be asked for the job later, None where it has none. A run with a
        `resume_job_id` is not posted while the engine knows that job.

        Raises Rejected, OutOfMemory, Fatal or Transient by the error table; EngineDown when the request was
        never taken; EngineLost when the connection broke after it was sent; DeadlineExceeded or EngineHung
        after the deadline; Interrupted when `interrupt` ended this run.
        """

    def waited_s(self) -> float:
        """Return how long the last run was with the engine before it began, behind work of others'; for its own thread.

        0 where the engine does not tell.
        """

    def interrupt(self, run: PreparedRun) -> bool:
        """End `run` if it is what renders now; return whether an interrupt was sent. Raises nothing."""

    def progress(self) -> Progress | None:
        """Return how far the present run is; None when nothing runs or the engine does not tell."""

    def preview(self) -> Preview | None:
        """Return the latest picture in the making of the present run; None when there is none. Raises nothing."""

    def free_memory(self) -> None:
        """Make the engine drop what it holds on the GPU, after OutOfMemory. Raises EngineDown."""

    def golden(self, *, deadline_s: float) -> None:
        """Render a tiny known task; raise Fatal when even that fails, EngineDown when there is no engine."""

    def restart(self) -> bool:
        """Run the configured restart command; return False when there is none."""


class MessageQueue(Protocol):
    """One queue. Every call raises Unavailable when the queue does not answer, and may be made again."""

    lease_s: int

    def receive(self, most: int, *, wait_s: int) -> list[Message]:
        """Return up to `most` messages, hidden from others for `lease_s`; wait up to `wait_s` for the first."""

    def extend(self, receipts: Sequence[str]) -> list[str]:
        """Hide messages for one more lease; return the receipts that were refused."""

    def give_back(self, receipts: Sequence[str], *, delay_s: float) -> list[str]:
        """Show messages again after `delay_s`; return the receipts that were refused."""

    def delete(self, receipts: Sequence[str]) -> list[str]:
        """Delete messages; return the receipts whose deletion was not acknowledged."""

    def refuse(self, message: Message, why: Rejected) -> None:
        """Keep a message that cannot become a task where a person finds it, with the reason; then delete it."""


class ImageStore(Protocol):
    """Pictures, each written once."""

    def put(self, key: str, image: EngineImage) -> StoredImage:
        """Store `image` unless something lies under `key`; return what lies there now. Raises Unavailable."""

    def put_json(self, key: str, value: Mapping[str, Any]) -> None:
        """Store `value` as JSON unless something lies under `key`. Raises Unavailable, Unstorable."""

    def read_json(self, key: str) -> Any:
        """Return the value that lies under `key`, None when nothing does or nothing may be read. Raises Unavailable."""


class Topic(Protocol):
    """Where ends are published for whoever subscribes."""

    def publish(self, message: Mapping[str, Any], *, named: str | None) -> None:
        """Publish `message`; `named` names it beside, where its receivers know of that.

        Raises Unavailable when the topic does not answer, Unstorable when it will never take this message.
        """


class Webhooks(Protocol):
    """Addresses that want to be told."""

    def send(self, url: str, body: bytes, *, named: str, task_id: str) -> None:
        """Take `body` to be sent later; it neither waits nor raises."""


class PreviewStore(Protocol):
    """Pictures in the making, each replaced by the next. Both calls raise Unavailable."""

    def show(self, key: str, jpeg: bytes) -> None:
        """Put a picture under `key`, in place of what lies there."""

    def hide(self, key: str) -> None:
        """Take it away again; nothing there is no harm."""


class TaskStore(Protocol):
    """Task records; the claim decides who runs a task. Every call raises Unavailable when the store does not answer.

    The calls that take a claim raise LeaseLost when the record no longer names it.
    """

    def read(self, task_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the records that exist among the ids."""

    def claim(self, task: Task, message: Message, *, owner: str, lease_s: float) -> Claim | Refused:
        """Take the right to run `task`, counting one run, or say why not; repeatable with the same `owner`."""

    def renew(self, claim: Claim, *, lease_s: float, progress: Progress | None, job_id: str | None = None) -> bool:
        """Extend the lease; return whether cancellation was asked for.

        `job_id` is by what the engine can be asked for the run; whoever claims the task next on this host is told.
        """

    def release(self, claim: Claim, *, counts: Counts) -> None:
        """Put the task back to pending, at the cost that `counts` says."""

    def complete(self, claim: Claim, task: Task, result: Result) -> None:
        """Write the good end."""

    def fail(self, claim: Claim, task: Task, failure: Failure) -> None:
        """Write the bad end."""

    def cancelled(self, claim: Claim, task: Task) -> None:
        """Write the end of a task that was to be cancelled."""

    def close_unclaimed(self, task_id: str, record: Mapping[str, Any], status: str, failure: Failure | None) -> bool:
        """Write an end on a record that nobody holds; False if it is no longer as `record` shows it."""

    def announced(self, task_id: str, *, attempt: int | None) -> None:
        """Note that the end written under `attempt` was told to others, unless the record shows another by now."""
