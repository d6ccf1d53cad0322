"""A task for ComfyUI as a graph that is ready to be posted, and read back from what the engine says of it; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.ports import PreparedRun
from scheduler.engines.comfyui_batch import one_at_a_time
from scheduler.engines.comfyui_graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyRun(PreparedRun):
    """A graph made ready; `at` is what the client calls it, `uploads` are the names of its pictures in the engine.

    `beside` is what is posted with it, `include_temp` whether temporary files are results.
    """

    graph: Graph
    at: str
    beside: Mapping[str, Any]
    uploads: tuple[str, ...] = ()
    include_temp: bool = False


def written(run: ComfyRun) -> ComfyRun:
    """Return the run with its body. Raises Rejected for what JSON cannot say."""
    try:
        body = json.dumps({**run.beside, "prompt": run.graph}, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected(f"the graph cannot be written as JSON: {error}", field=run.at) from error
    return replace(run, body=body)


def split(run: ComfyRun) -> ComfyRun:
    """Return a run for the same pictures one at a time, the same run where that cannot be done."""
    graph = one_at_a_time(run.graph)
    return run if graph is None else written(replace(run, graph=graph))


def taken(said: bytes) -> tuple[str | None, Any]:
    """Return the prompt's id and what of it was refused, from the answer to a prompt that was taken."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None, None
    match answer:
        case {"prompt_id": str() as prompt_id, **rest}:
            return prompt_id, rest.get("node_errors")
        case _:
            return None, None


def is_success(entry: Mapping[str, Any]) -> bool:
    """Tell from its entry in the history whether a prompt did well; builds that keep no status keep only such."""
    match entry.get("status"):
        case {"status_str": said}:
            return bool(said == "success")
        case _:
            return True
