"""Which family a message belongs to, by its shape: the only list of formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task
from scheduler.wire import claim_check, eks_v1alpha1, eks_v1alpha2, job_api, own, predecessor, sns_envelope
from scheduler.wire.claim_check import Pointer
from scheduler.wire.json_body import parse_json, require_object, shorten


@dataclass(frozen=True, slots=True)
class Family:
    """Messages of one shape: `looks_like` tells by their keys alone whether a body means to be one of them."""

    name: str
    shape: str
    looks_like: Callable[[Mapping[str, Any]], bool]
    parse: Callable[[Mapping[str, Any]], Task | str]


def _is_wrapped(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("task"), dict)


def _unwrap(body: Mapping[str, Any]) -> Task | str:
    """Return the task in the ``task`` that the HTTP API of Stable Diffusion on EKS has around its requests."""
    return _family(body["task"], "task", EKS).parse(body["task"])


EKS = (
    Family(
        "v1alpha2",
        '{"metadata": {"id", "tasktype"}, "content"}',
        eks_v1alpha2.looks_like,
        eks_v1alpha2.parse,
    ),
    Family("v1alpha1", '{"alwayson_scripts": {"task", "id_task"}}', eks_v1alpha1.looks_like, eks_v1alpha1.parse),
)
FAMILIES = (
    Family("own", '{"task_id", "task_type", "payload"}', own.looks_like, own.parse),
    Family("predecessor", '{"taskId", "storage": "dynamodb"}', predecessor.looks_like, predecessor.parse_reference),
    *EKS,
    Family("wrapped", '{"task": {...}} around one of these two', _is_wrapped, _unwrap),
    Family("job API", '{"task_id", "api_path", "request_body"}', job_api.looks_like, job_api.parse),
)
"""Formats told apart by keys of which no two share one; each also in an envelope of SNS, or pointed to by its body."""


def recognise(body: str, *, fetched_by: Pointer | None = None) -> Task | str | Pointer:
    """Return the task that a message's body holds, the id of the record that holds it, or where the body lies.

    What a pointer points to is given here again, with the pointer as `fetched_by`; it cannot be a pointer itself.
    Raises Rejected naming the field when the body fits no format.
    """
    field, sns_id = "body", fetched_by.sns_id if fetched_by else None
    attributes: Mapping[str, str] = {}
    message = parse_json(body, field=field)
    if isinstance(message, dict) and sns_envelope.looks_like(message):
        envelope = sns_envelope.unwrap(message)
        field, sns_id, attributes = "Message", envelope.sns_id or sns_id, envelope.attributes
        message = parse_json(envelope.text, field=field)
    if claim_check.looks_like(message):
        if fetched_by is not None:
            raise Rejected(f"{fetched_by.address} holds a pointer again, not a body", field=field)
        return claim_check.parse(message, attributes=attributes, sns_id=sns_id)
    found = _family(require_object(message, field=field), field, FAMILIES).parse(message)
    return replace(found, sns_id=sns_id) if isinstance(found, Task) else found


def _family(message: Mapping[str, Any], field: str, among: Sequence[Family]) -> Family:
    found = [family for family in among if family.looks_like(message)]
    if len(found) == 1:
        return found[0]
    has = shorten(sorted(message)) if message else "no keys"
    if found:
        mixed = " and ".join(family.name for family in found)
        said = f"{field} fits more than one format, {mixed}: it has {has}; leave out what belongs to the other"
    else:
        expected = " or ".join(family.shape for family in among)
        said = f"{field} fits no known format: it has {has}; expected {expected}"
    raise Rejected(said, field=field)
