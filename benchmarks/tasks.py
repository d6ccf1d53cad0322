"""The tasks of a run, good and bad, and how each message format writes them: pure functions."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.engine import CHECKPOINTS, OUT_OF_MEMORY
from benchmarks.scenarios import Scenario

HUGE_CHARS = 200_000
BAD_KINDS = (
    "not-json",
    "missing-keys",
    "huge",
    "wrong-types",
    "bad-unicode",
    "unknown-type",
    "engine-422",
    "engine-500",
)
"""The last three are well-formed messages that ask for something impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTask:
    """One thing to ask for. `token` stands in the prompt and in every form of the message, so that calls to the
    engine, images and dead letters can be traced to the task whatever a consumer names them.
    """

    task_id: str
    token: str
    payload: dict[str, Any]
    checkpoint: str | None = None
    bad: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message's body and the item that must be in the table first, if any; all its values are strings.

    `trace` is the header that X-Ray puts on messages, where it is on their way.
    """

    body: str
    item: dict[str, str] = field(default_factory=dict)
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFormat:
    """A way to write tasks, and the name of the table's key that goes with it."""

    table_key: str
    write: Callable[[BenchTask], Letter]


def make_tasks(scenario: Scenario, run: str) -> list[BenchTask]:
    """Return the scenario's tasks; `run` (hex digits) makes the tokens unlike those of other runs, nothing else."""
    rng = random.Random(scenario.name)
    bad_places = rng.sample(range(scenario.tasks), round(scenario.tasks * scenario.bad_share))
    bad = {place: BAD_KINDS[number % len(BAD_KINDS)] for number, place in enumerate(bad_places)}
    return [_make_task(n, f"bench-{run}-{n}", rng, scenario.checkpoints, bad.get(n)) for n in range(scenario.tasks)]


def _make_task(number: int, token: str, rng: random.Random, checkpoints: int, bad: str | None) -> BenchTask:
    payload: dict[str, Any] = {
        "prompt": f"a lighthouse in the evening, {token}",
        "negative_prompt": "fog",
        "steps": 20,
        "width": 512,
        "height": 512,
        "cfg_scale": 7,
        "seed": number,
        "sampler_name": "Euler a",
    }
    if bad == "engine-422":
        payload["steps"] = "many"
    if bad == "engine-500":
        payload["prompt"] += f", {OUT_OF_MEMORY}"
    return BenchTask(
        task_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        token=token,
        payload=payload,
        checkpoint=rng.choice(CHECKPOINTS[:checkpoints]).title if checkpoints else None,
        bad=bad,
    )


def write_own(task: BenchTask) -> Letter:
    """Write the scheduler's own message: the whole request in the body."""
    body: dict[str, Any] = {"task_id": task.task_id, "task_type": "txt2img", "payload": task.payload}
    if task.checkpoint:
        body["checkpoint"] = task.checkpoint
    match task.bad:
        case "not-json":
            return Letter(body=f"task_id={task.token}, {{no json")
        case "missing-keys":
            body = {"note": task.token}
        case "huge":
            body["task_id"] = task.token + "x" * HUGE_CHARS
        case "wrong-types":
            body = {"task_id": 12345, "task_type": ["txt2img"], "payload": task.token}
        case "bad-unicode":
            body["task_id"] = f"\ud800{task.token}"  # half a character, which JSON can write as an escape
        case "unknown-type":
            body["task_type"] = "no-such-task"
    return Letter(body=json.dumps(body))


def write_predecessor(task: BenchTask) -> Letter:
    """Write the predecessor's message: a reference, with the request in the table's item."""
    payload = dict(task.payload)
    if task.checkpoint:
        payload["override_settings"] = {"sd_model_checkpoint": task.checkpoint}
    body: dict[str, Any] = {"taskId": task.task_id, "storage": "dynamodb"}
    match task.bad:
        case "not-json":
            return Letter(body=f"taskId={task.token}, {{no json")
        case "missing-keys":
            return Letter(body=json.dumps({"note": task.token}))
        case "huge":
            return Letter(body=json.dumps(body | {"taskId": task.token + "x" * HUGE_CHARS}))
        case "wrong-types":
            return Letter(body=json.dumps({"taskId": 12345, "storage": ["dynamodb", task.token]}))
        case "bad-unicode":
            return Letter(body=json.dumps(body | {"taskId": f"\ud800{task.token}"}))
    api = "/sdapi/v1/" + ("no-such-api" if task.bad == "unknown-type" else "txt2img")
    item = {
        "taskId": task.task_id,
        "requestData": json.dumps({"api": api, "payload": payload}),
        "taskStatus": "waiting",
        "submitTime": "2026-11-20T12:00:00.000Z",
    }
    return Letter(body=json.dumps(body), item=item)


def write_eks(task: BenchTask) -> Letter:
    """Write a message of Stable Diffusion on EKS, v1alpha2: SNS's envelope around the whole request."""
    content = dict(task.payload)
    if task.checkpoint:
        content["alwayson_scripts"] = {"sd_model_checkpoint": task.checkpoint}
    metadata: dict[str, Any] = {
        "id": task.task_id,
        "runtime": "legacy",
        "tasktype": "text-to-image",
        "prefix": "output",
        "context": {},
    }
    request: dict[str, Any] = {"metadata": metadata, "content": content}
    match task.bad:
        case "not-json":
            return _enveloped(task, f"id={task.token}, {{no json")
        case "missing-keys":
            request = {"note": task.token}
        case "huge":
            metadata["id"] = task.token + "x" * HUGE_CHARS
        case "wrong-types":
            request = {"metadata": metadata | {"id": 12345, "tasktype": ["text-to-image"]}, "content": task.token}
        case "bad-unicode":
            metadata["id"] = f"\ud800{task.token}"
        case "unknown-type":
            metadata["tasktype"] = "no-such-task"
    return _enveloped(task, json.dumps(request))


def _enveloped(task: BenchTask, message: str) -> Letter:
    body = {
        "Type": "Notification",
        "MessageId": str(uuid.uuid5(uuid.NAMESPACE_OID, task.token)),
        "TopicArn": "arn:aws:sns:us-east-1:123456789012:bench-input",
        "Message": message,
        "Timestamp": "2026-11-20T12:00:00.000Z",
        "SignatureVersion": "1",
    }
    # Its topic traces, and its own agent cannot do without the header.
    return Letter(
        body=json.dumps(body), trace="Root=1-65f0a1b2-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0"
    )


FORMATS = {
    "own": MessageFormat(table_key="task_id", write=write_own),
    "predecessor": MessageFormat(table_key="taskId", write=write_predecessor),
    "eks": MessageFormat(table_key="task_id", write=write_eks),
}
