"""How a ComfyUI engine's refusals and failed runs are read, by `comfyui_error_table`: pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.errors import Counts, Rejected, SchedulerError, Transient
from scheduler.engines.comfyui_error_table import PROMPT_CASES, RUN_CASES
from scheduler.engines.error_cases import MAX_WORDS, Refusal, case_of, error_of
from scheduler.wire.json_body import shorten

_NODE_IN_DETAILS = re.compile(r"Node ID '#(.+?)'")
MOST_COMPLAINTS = 5


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that the engine finds wrong with one node; `input_name` where it is an input."""

    node_id: str
    class_type: str
    input_name: str | None
    words: str

    @property
    def said(self) -> str:
        """The complaint as people read it."""
        where = f"node {self.node_id} ({self.class_type})"
        return f"{where}, input {self.input_name}: {self.words}" if self.input_name else f"{where}: {self.words}"


def complaints(node_errors: Any) -> list[Complaint]:
    """Return what `node_errors` holds, whatever is in it; older servers send a list."""
    return list(_complaints(node_errors)) if isinstance(node_errors, dict) else []


def _complaints(node_errors: Mapping[str, Any]) -> Iterator[Complaint]:
    for node_id, entry in node_errors.items():
        if not isinstance(entry, dict):
            continue
        class_type = str(entry.get("class_type") or "?")
        listed = entry.get("errors")
        for error in listed if isinstance(listed, list) else []:
            if isinstance(error, dict):
                info = error.get("extra_info")
                name = info.get("input_name") if isinstance(info, dict) else None
                yield Complaint(node_id, class_type, name if isinstance(name, str) else None, _words(error))


def refused(status: int, body: bytes, *, at: str, uploads: Sequence[str]) -> SchedulerError:
    """Return what an answer to POST /prompt other than 200 means.

    `at` is what the client calls the graph (``payload.prompt``), `uploads` the names of the pictures that we sent.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    found = complaints(answer.get("node_errors")) if isinstance(answer, dict) else []
    error = answer.get("error") if isinstance(answer, dict) else None
    said = "; ".join(one.said for one in found[:MOST_COMPLAINTS])
    if not said:
        said = _words(error) if isinstance(error, dict) else str(error or body[:MAX_WORDS].decode("utf-8", "replace"))
    if any(name in one.words for one in found for name in uploads):
        said = f"uploaded file is gone: {said}"
    refusal = Refusal(status=status, error="", said=said.strip())
    return error_of(case_of(refusal, PROMPT_CASES), refusal, field=_field(found, said, at))


def partly_refused(node_errors: Any, *, at: str) -> Rejected | None:
    """Return the failure of a prompt that was taken without some of its outputs; None if it was taken whole."""
    found = complaints(node_errors)
    if not found and not node_errors:
        return None
    words = "; ".join(one.said for one in found[:MOST_COMPLAINTS])[:MAX_WORDS] or shorten(node_errors, MAX_WORDS)
    return Rejected(
        f"the engine would make only a part of what the graph asks for: {words}",
        field=_field(found, "", at),
        engine=words,
    )


def failed(messages: Any, *, at: str) -> SchedulerError:
    """Return what a run that did not succeed means, by the messages of its status."""
    kind, data = _last(messages)
    if kind == "execution_interrupted":
        # A try, for a graph may have a node that does so itself, each time.
        return Transient("the engine was interrupted, and not by this worker", counts=Counts.TRY)
    node_id, class_type = data.get("node_id"), data.get("node_type")
    refusal = Refusal(
        status=200,
        error=str(data.get("exception_type") or "").rpartition(".")[2],
        said=str(data.get("exception_message") or "").strip() or "it gave no reason",
    )
    where = f"node {node_id} ({class_type}): " if node_id is not None else ""
    field = f"{at}.{node_id}" if node_id is not None else at
    return error_of(case_of(refusal, RUN_CASES), refusal, field=field, where=where)


def _last(messages: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the last message that says why a run ended, whatever is in there."""
    for message in reversed(messages if isinstance(messages, list) else []):
        match message:
            case [("execution_interrupted" | "execution_error") as kind, {**data}]:
                return str(kind), {str(name): value for name, value in data.items()}
            case _:
                continue
    return "", {}


def _words(error: Mapping[str, Any]) -> str:
    parts = [str(error[key]).strip() for key in ("message", "details") if error.get(key)]
    return ": ".join(dict.fromkeys(parts))[:MAX_WORDS]


def _field(found: Sequence[Complaint], said: str, at: str) -> str:
    if found:
        first = found[0]
        return f"{at}.{first.node_id}.inputs.{first.input_name}" if first.input_name else f"{at}.{first.node_id}"
    node = _NODE_IN_DETAILS.search(said)
    return f"{at}.{node[1]}.class_type" if node else at
