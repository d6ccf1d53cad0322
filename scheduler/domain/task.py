"""A task, the message that brought it, the claim on it, and what came of it: immutable values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any


class TaskType(StrEnum):
    """What an engine is asked to do; the values are those of the wire."""

    TXT2IMG = "txt2img"
    IMG2IMG = "img2img"
    EXTRA_SINGLE = "extra-single-image"
    EXTRA_BATCH = "extra-batch-images"
    PIPELINE = "pipeline"


class Format(StrEnum):
    """The message family a task arrived in; it decides the vocabulary of the record and the names of the files."""

    OWN = "own"
    PREDECESSOR = "predecessor"
    EKS_V1ALPHA1 = "eks-v1alpha1"
    EKS_V1ALPHA2 = "eks-v1alpha2"
    JOB_API = "job-api"

    @property
    def is_eks(self) -> bool:
        """Whether it is one of Stable Diffusion on EKS: its clients choose ids and use them
        again for other requests.
        """
        return self in {Format.EKS_V1ALPHA1, Format.EKS_V1ALPHA2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One delivery of one SQS message.

    `receipt` belongs to this delivery; `sent_at_s` is SQS's clock (epoch seconds), `received_s` this host's
    monotonic clock. `queue` is the index of the queue in the order of priority, 0 first. `sns_id` is what SNS calls the
    message, in each copy that it delivers; None for a message that did not come in SNS's envelope.
    """

    queue: int
    message_id: str
    receipt: str
    body: str
    sent_at_s: float
    receive_count: int
    received_s: float
    sns_id: str | None = None

    @property
    def identity(self) -> str:
        """What tells this message from others, and is the same in all its copies."""
        return self.sns_id or self.message_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One request, in the engine's own terms, bound to its id by `fingerprint`.

    `by_reference` tells that the request lives in the record, which this task therefore never creates. `runtime` is the
    engine's name, case-sensitive; None leaves the choice among those that can run the task type. A pipeline is a
    ComfyUI graph, or with `api_path` a request to that path of the job API. `sns_id` is SNS's id of the message it came
    in. `webhook` is the address that wants to be told of the end.
    """

    task_id: str
    task_type: TaskType
    payload: Mapping[str, Any]
    fingerprint: str
    format: Format = Format.OWN
    runtime: str | None = None
    prefix: str | None = None
    checkpoint: str | None = None
    context: Any = None
    by_reference: bool = False
    api_path: str | None = None
    preview: bool = False
    sns_id: str | None = None
    webhook: str | None = None

    @property
    def job_type(self) -> str:
        """What the record calls the kind of work."""
        return self.api_path or self.task_type.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to run a task: `owner` is a nonce of this claim, `attempt` the fence, never reset.

    `job_id` is the job of an engine on this host that an earlier holder of the claim left behind, and that may still
    run. `runs` counts this run; `tries` counts failed preparations so far, the first at `first_try_at_s`.
    """

    task_id: str
    owner: str
    attempt: int
    run_no: int
    runs: int
    tries: int = 0
    first_try_at_s: float | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineImage:
    """One picture as the engine made it: decoded bytes, verified, with what its header says.

    Engines that make videos and sounds hand them over likewise; those have no `width` and `height`.
    """

    data: bytes
    media_type: str
    extension: str
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    all_black: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One picture in the bucket. URLs are derived from `key`, never stored."""

    key: str
    media_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where a task's time went, in milliseconds."""

    queued_ms: int = 0
    prepare_ms: int = 0
    generate_ms: int = 0
    store_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a completed task is recorded as."""

    images: tuple[StoredImage, ...]
    timings: Timings = field(default_factory=Timings)
    checkpoint: str | None = None
    sampler: str | None = None
    warnings: tuple[str, ...] = ()
    result_s3_uri: str | None = None
    """Where the engine itself stored the result, in place of `images`."""
    gpu_cost_usd: Decimal | None = None
    """What the instance cost for the seconds of its render; None where no price is known."""
    images_key: str | None = None
    """Where the list of images lies in the bucket, when it is too long for the record."""

    def addresses(self, address: Callable[[str], str]) -> list[str]:
        """Return where the results lie: `address` turns an image's key into what people are given."""
        own = [self.result_s3_uri] if self.result_s3_uri and not self.images else []
        return own or [address(image.key) for image in self.images]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a failed task is recorded as: `kind` is the error's, `field` and `engine` as on `Rejected`."""

    kind: str
    message: str
    field: str | None = None
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: `percent` 0..100, the sampler step, the seconds left as the engine guesses them.

    `node` names the part of a graph that runs, for engines that run graphs; `preview_key` is where the picture in the
    making lies, once it does.
    """

    percent: int
    step: int
    eta_s: int
    node: str | None = None
    preview_key: str | None = None


def fingerprint(request: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of the canonical request: keys sorted, no white space, non-ASCII escaped."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
