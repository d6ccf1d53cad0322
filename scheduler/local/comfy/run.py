"""One prompt's run: its nodes in order, what is cached of them, its events, and the fault that is to strike it."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from scheduler.local.comfy.faults import FaultKind
from scheduler.local.comfy.nodes import CLASSES, Made
from scheduler.local.comfy.room import Room
from scheduler.local.serving.diary import Diary
from scheduler.local.serving.faults import Fault, FaultBook
from scheduler.local.serving.pace import Pace

PREVIEW_PX = 64
JPEG_PREVIEW = struct.pack(">II", 1, 1)
OUT_OF_MEMORY = (
    "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 15.20 GiB\n"
    "Requested               : 2.00 GiB\nDevice limit            : 15.77 GiB"
)
Cached = tuple[tuple[Any, ...], dict[str, Any] | None]
Tell = Callable[[str, "dict[str, Any] | bytes"], None]


class Interrupted(Exception):
    """Somebody asked for the end."""


class Failed(Exception):
    """A node raised; the events have said so."""


class Vanished(Exception):
    """A fault: as if the prompt had never been."""


class _Torch(Exception):
    """An exception of a library that is not here; `name` is the class that it shows."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every run works with. `pause` waits for a number of seconds; `die` ends the process."""

    room: Room
    pace: Pace
    diary: Diary
    faults: FaultBook
    is_interrupted: Callable[[], bool]
    previews: bool
    pause: Callable[[float], object]
    die: Callable[[int], object]


@dataclass(frozen=True, slots=True)
class _Now:
    """The node that runs, by id, and its inputs."""

    node_id: str
    inputs: Mapping[str, Any]


class Run:
    """Runs once. `cache` afterwards holds what the next run may use; `messages` is what the history keeps."""

    def __init__(
        self,
        means: Means,
        prompt_id: str,
        graph: Mapping[str, Any],
        *,
        fault: Fault | None,
        cache: Mapping[str, Cached],
        tell: Tell,
    ) -> None:
        self.room = means.room
        self.cache: dict[str, Cached] = {}
        self.messages: list[list[Any]] = []
        self._means = means
        self._prompt_id = prompt_id
        self._graph = graph
        self._fault = fault
        self._has_struck = False
        self._known = cache
        self._tell = tell
        self._signatures: dict[str, str] = {}
        self._done: dict[str, Cached] = {}
        self._now = _Now("", {})

    def execute(self, outputs: Iterable[str]) -> dict[str, Any]:
        """Return what the output nodes show. Raises Interrupted, Failed or Vanished, having told."""
        self.message("execution_start", {"prompt_id": self._prompt_id})
        order: list[str] = []
        for output in outputs:
            self._add(output, order)
        for node_id in order:
            if (found := self._known.get(self._signature(node_id))) is not None:
                self._done[node_id] = found
        self.message("execution_cached", {"nodes": list(self._done), "prompt_id": self._prompt_id})
        for node_id in order:
            self._node(node_id)
        self.message("execution_success", {"prompt_id": self._prompt_id})
        shown = {node_id: made[1] for node_id in order if (made := self._done[node_id])[1] is not None}
        return {} if self._is(FaultKind.NO_OUTPUT) else shown

    def message(self, kind: str, data: dict[str, Any]) -> None:
        """Tell an event that the history keeps too."""
        data |= {"timestamp": int(time.time() * 1000)}
        self.messages.append([kind, data])
        self.tell(kind, data)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Tell an event to the client."""
        self._tell(kind, data)

    # what nodes ask

    def load(self, checkpoint: str) -> None:
        """See `Work`."""
        before = self.room.loaded
        if before != checkpoint:
            self._means.pause(self._means.pace.switch_seconds)
            self.room.loaded = checkpoint
            self._means.diary.switched(before, checkpoint)

    def step(self, value: int, most: int, picture: Image.Image) -> None:
        """See `Work`."""
        fault = self._fault
        self._strike(value - 1, most)
        factor = fault.factor if fault and fault.kind is FaultKind.SLOW else 1.0
        self._means.pause(self._means.pace.seconds_per_step * factor)
        if self._means.is_interrupted():
            raise Interrupted
        node = self._now.node_id
        self.tell("progress", {"value": value, "max": most, "prompt_id": self._prompt_id, "node": node})
        self._tell_state(node, value, most, "running")
        if self._means.previews:
            small = picture.copy()
            small.thumbnail((PREVIEW_PX, PREVIEW_PX))
            out = io.BytesIO()
            small.save(out, "JPEG")
            self._tell("preview", JPEG_PREVIEW + out.getvalue())

    def save(self, data: bytes, prefix: str, extension: str, *, folder: str = "output") -> dict[str, Any]:
        """See `Work`."""
        entry = self.room.save(
            prefix, data[: len(data) // 2] if self._is(FaultKind.CORRUPT_IMAGE) else data, extension, folder=folder
        )
        if self._is(FaultKind.NO_FILE):
            self.room.remove(entry)
        return entry

    def finished(self, picture: Image.Image) -> Image.Image:
        """See `Work`."""
        return Image.new("RGB", picture.size) if self._is(FaultKind.BLACK) else picture

    # the nodes

    def _add(self, node_id: str, order: list[str]) -> None:
        """Append a node after those that it comes from."""
        if node_id not in order:
            for value in self._graph[node_id]["inputs"].values():
                if isinstance(value, list):
                    self._add(value[0], order)
            order.append(node_id)

    def _signature(self, node_id: str) -> str:
        """Return what a node's result depends on; the same signature gives the same result."""
        if node_id not in self._signatures:
            node = self._graph[node_id]
            inputs = {
                name: [self._signature(value[0]), value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            files = [
                self.room.digest(value)
                for value in inputs.values()
                if node["class_type"].startswith("Load") and isinstance(value, str)
            ]
            self._signatures[node_id] = json.dumps([node["class_type"], inputs, files], sort_keys=True)
        return self._signatures[node_id]

    def _node(self, node_id: str) -> None:
        known = CLASSES[self._graph[node_id]["class_type"]]
        if node_id not in self._done:
            if self._means.is_interrupted():
                raise self._interrupted(node_id)
            self._tell_state(node_id, 0, 1, "running")
            self.tell("executing", {"node": node_id, "display_node": node_id, "prompt_id": self._prompt_id})
            made = self._made(node_id)
            self._done[node_id] = (made.values, made.ui)
        self.cache[self._signature(node_id)] = self._done[node_id]
        if known.is_output and (ui := self._done[node_id][1]) is not None:
            self.tell(
                "executed", {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": self._prompt_id}
            )

    def _made(self, node_id: str) -> Made:
        node = self._graph[node_id]
        known = CLASSES[node["class_type"]]
        inputs = {
            name: self._done[value[0]][0][value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        self._now = _Now(node_id, inputs)
        try:
            if known.is_output:
                self._strike(1, 1)
            return known.run(self, inputs)
        except Interrupted:
            raise self._interrupted(node_id) from None
        except Vanished:
            raise
        except Exception as error:
            raise self._failed(node_id, node["class_type"], error) from error

    def _interrupted(self, node_id: str) -> Interrupted:
        """Tell of the interrupt and return it."""
        data = {"prompt_id": self._prompt_id, "node_id": node_id, "node_type": self._graph[node_id]["class_type"]}
        self.message("execution_interrupted", data | {"executed": list(self._done)})
        return Interrupted()

    def _failed(self, node_id: str, class_type: str, error: Exception) -> Failed:
        """Tell of a node's error and return what ends the run."""
        module = type(error).__module__
        name = error.name if isinstance(error, _Torch) else type(error).__qualname__
        data = {
            "prompt_id": self._prompt_id,
            "node_id": node_id,
            "node_type": class_type,
            "executed": list(self._done),
            "exception_message": f"{error}\n",
            "exception_type": name if isinstance(error, _Torch) or module == "builtins" else f"{module}.{name}",
            "traceback": [f'  File "/standin/nodes.py", in {class_type}\n'],
            "current_inputs": {key: [str(value)] for key, value in self._now.inputs.items()},
            "current_outputs": list(self._done),
        }
        self.message("execution_error", data)
        return Failed()

    def _tell_state(self, node_id: str, value: int, most: int, state: str) -> None:
        nodes = {
            node_id: {"value": value, "max": most, "state": state, "node_id": node_id, "prompt_id": self._prompt_id}
        }
        self.tell("progress_state", {"prompt_id": self._prompt_id, "nodes": nodes})

    # faults

    def _is(self, kind: FaultKind) -> bool:
        return self._fault is not None and self._fault.kind is kind

    def _strike(self, done: int, most: int) -> None:
        """Carry out a fault that ends or stops a run, once, when `done` of `most` steps have come to its moment."""
        fault = self._fault
        if fault is None or self._has_struck or done < min(fault.after_steps, most):
            return
        self._has_struck = True
        match fault.kind:
            case FaultKind.OOM:
                raise _Torch("torch.OutOfMemoryError", OUT_OF_MEMORY)
            case FaultKind.FATAL:
                raise _Torch("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered")
            case FaultKind.CRASH:
                self._means.die(1)
            case FaultKind.HANG:
                self._means.faults.hang(fault)
            case FaultKind.LOST:
                raise Vanished
            case FaultKind.DROP:
                self._tell("cut", {})
            case _:
                return


def label_of(graph: Mapping[str, Any]) -> str:
    """Return the first text of a prompt, by which diary and faults know it."""
    texts = (node["inputs"].get("text") for node in graph.values() if node["class_type"] == "CLIPTextEncode")
    return next((text for text in texts if isinstance(text, str)), "")


def sampled_batch(graph: Mapping[str, Any]) -> int:
    """Return the largest batch that a sampler of the graph gets at once."""
    most = 1
    for node in graph.values():
        link = node["inputs"].get("latent_image")
        if isinstance(link, list):
            source = graph[link[0]]["inputs"]
            size = source.get("length", source.get("batch_size", 1))
            most = max(most, size if isinstance(size, int) else 1)
    return most
