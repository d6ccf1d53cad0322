"""What ComfyUI's events tell of one prompt: how far it is, and how it looks; pure, and never the last word."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from scheduler.domain.ports import Preview
from scheduler.domain.task import Progress
from scheduler.engines.comfyui_graph import Graph, step_weights

_PREVIEW = 1
_MEDIA_TYPES = {1: "image/jpeg", 2: "image/png"}
_HEAD = struct.Struct(">II")
_DAY_S = 86400
_LEAST_SHARE = 0.02
"""Below this share of the work no time left is guessed."""
_LONGEST_NAME = 60
_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


class Track:
    """One prompt as its events show it. One thread takes events in, others may ask meanwhile."""

    def __init__(self, prompt_id: str, graph: Graph) -> None:
        self.prompt_id = prompt_id
        self.started_s: float | None = None
        self.is_over = False
        self.preview: Preview | None = None
        self._weights = step_weights(graph)
        self._names = {  # for the record: the client chose both, at any length
            node_id: f"{node['class_type'][:_LONGEST_NAME]} {node_id[:_LONGEST_NAME]}"
            for node_id, node in graph.items()
        }
        self._done: frozenset[str] = frozenset()  # replaced whole, for others read it
        self._node: str | None = None
        self._step = 0
        self._share = 0.0

    def take(self, frame: str | bytes, now_s: float) -> bool:
        """Take in a frame, whatever is in it; return whether it was about this prompt."""
        if isinstance(frame, bytes):
            return self._show(frame)
        try:
            event = json.loads(frame)
        except (ValueError, RecursionError):
            return False
        match event:
            case {"type": str() as kind, "data": {"prompt_id": self.prompt_id} as data}:
                self._note(kind, data, now_s)
                return True
            case _:
                return False

    def progress(self, now_s: float) -> Progress | None:
        """Return how far it is; None before it begins. A node counts as much as it has steps."""
        if self.started_s is None:
            return None
        node, share = self._node, self._share
        whole = sum(self._weights.values())
        done: float = sum(self._weights.get(one, 0) for one in self._done)
        done += share * self._weights.get(node, 0) if node is not None and node not in self._done else 0
        part = min(1.0, done / whole)
        spent_s = max(0.0, now_s - self.started_s)
        left_s = spent_s * (1 - part) / part if part > _LEAST_SHARE else 0.0
        name = self._names.get(node) if node is not None else None
        return Progress(round(100 * part), self._step, min(_DAY_S, round(left_s)), name)

    def begin(self, now_s: float) -> None:
        """Note that it runs, told by whatever."""
        if self.started_s is None:
            self.started_s = now_s

    def _note(self, kind: str, data: Mapping[str, Any], now_s: float) -> None:
        self.begin(now_s)
        if kind in _ENDS:
            self.is_over = True
        elif kind == "execution_cached":
            listed = data.get("nodes")
            for node in listed if isinstance(listed, list) else []:
                self._finish(node if isinstance(node, str) else None)
        elif kind == "executing":
            self._turn_to(data)
        elif kind == "executed":
            self._finish(self._shown(data))
        elif kind == "progress":
            self._step_to(self._shown(data) or self._node, data.get("value"), data.get("max"))

    def _turn_to(self, data: Mapping[str, Any]) -> None:
        if data.get("node") is None:
            self.is_over = True
            return
        node = self._shown(data)
        if node != self._node:
            self._finish(self._node)
            self._node, self._step, self._share = node, 0, 0.0

    def _step_to(self, node: str | None, value: Any, most: Any) -> None:
        if not _is_number(value) or not _is_number(most) or most <= 0:
            return
        self._node = node
        self._step, self._share = max(0, int(value)), max(0.0, min(1.0, value / most))

    def _finish(self, node: str | None) -> None:
        if node is not None:
            self._done = self._done | {node}

    def _shown(self, data: Mapping[str, Any]) -> str | None:
        """Return the graph's node that an event is about: a node that another has put in shows that one."""
        for name in ("node", "display_node"):
            if isinstance(data.get(name), str) and data[name] in self._weights:
                return str(data[name])
        return None

    def _show(self, frame: bytes) -> bool:
        """Keep a picture in the making; such frames name no prompt, and come to the client whose prompt runs."""
        if len(frame) <= _HEAD.size or self.started_s is None or self.is_over:
            return False
        event, kind = _HEAD.unpack_from(frame)
        if event != _PREVIEW or kind not in _MEDIA_TYPES:
            return False
        self.preview = Preview(frame[_HEAD.size :], _MEDIA_TYPES[kind])
        return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
