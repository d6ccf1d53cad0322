"""Graphs in ComfyUI's API format: their shape, their seeds, what they load and how large it gets; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.domain.errors import Rejected
from scheduler.domain.pace import bounded_work
from scheduler.engines.seeds import pinned_seed
from scheduler.wire.json_body import shorten

Graph = Mapping[str, Mapping[str, Any]]
SEEDS = ("seed", "noise_seed")
"""What inputs that hold a seed are called."""
WANTING = {
    "KSampler": "seed",
    "KSamplerAdvanced": "noise_seed",
    "SamplerCustom": "noise_seed",
    "RandomNoise": "noise_seed",
}
"""Classes that cannot do without a seed, and which input it is."""
_SIZES = ("width", "height", "batch_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A payload taken apart: the graph, what the client calls it in errors, and what goes to the engine beside it."""

    graph: Graph
    at: str
    extra: Mapping[str, Any]
    include_temp: bool


def read(payload: Mapping[str, Any]) -> Request:
    """Take a payload apart: a graph, or an object with the graph as `prompt`, as the API's clients send it.

    Raises Rejected naming the node and the field for what is no graph.
    """
    wrapped = payload.get("prompt")
    is_wrapped = "prompt" in payload and not (isinstance(wrapped, dict) and "class_type" in wrapped)
    at = "payload.prompt" if is_wrapped else "payload"
    graph = _checked(wrapped if is_wrapped else payload, at)
    extra: dict[str, Any] = {}
    include_temp: Any = False
    if is_wrapped:
        include_temp = payload.get("include_temp", False)
        if not isinstance(include_temp, bool):
            raise _wrong("payload.include_temp", include_temp, "must be true or false")
        for name, kind in (("extra_data", dict), ("partial_execution_targets", list)):
            if payload.get(name) is not None:
                if not isinstance(payload[name], kind):
                    raise _wrong(
                        f"payload.{name}", payload[name], f"must be {'an object' if kind is dict else 'a list'}"
                    )
                extra[name] = payload[name]
    return Request(graph=graph, at=at, extra=extra, include_temp=include_temp)


def is_link(value: Any) -> bool:
    """Tell whether an input comes from another node: `[node id, slot]`."""
    match value:
        case [str(), int() as slot] if not isinstance(slot, bool):
            return True
        case _:
            return False


def links(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the nodes that a node comes from."""
    for value in node["inputs"].values():
        if is_link(value):
            yield value[0]


def with_input(graph: Graph, node_id: str, name: str, value: Any) -> Graph:
    """Return a graph that differs in one input."""
    node = graph[node_id]
    return {**graph, node_id: {**node, "inputs": {**node["inputs"], name: value}}}


def pin_seeds(graph: Graph, seed_key: str) -> Graph:
    """Return the graph with every random seed fixed: -1 anywhere, none where the node wants one.

    The same key gives the same seeds, each node its own.
    """
    for node_id, node in graph.items():
        wanted = WANTING.get(node["class_type"])
        for name in SEEDS:
            value = node["inputs"].get(name)
            if _is_minus_one(value) or (value is None and name == wanted):
                graph = with_input(graph, node_id, name, pinned_seed(f"{seed_key}:{node_id}.{name}"))
    return graph


def seed_of(graph: Graph, node_id: str) -> int | None:
    """Return the seed that decided what a node shows; None when several did, or none that the graph tells."""
    seeds = {
        node["inputs"][name]
        for above in ancestors(graph, node_id)
        for node in (graph[above],)
        for name in SEEDS
        if isinstance(node["inputs"].get(name), int) and not isinstance(node["inputs"][name], bool)
    }
    return seeds.pop() if len(seeds) == 1 else None


def ancestors(graph: Graph, node_id: str) -> set[str]:
    """Return a node and all that it comes from; a circle does no harm."""
    seen: set[str] = set()
    open_ids = [node_id] if node_id in graph else []
    while open_ids:
        current = open_ids.pop()
        if current not in seen:
            seen.add(current)
            open_ids += [origin for origin in links(graph[current]) if origin in graph]
    return seen


def checkpoints(graph: Graph) -> list[str]:
    """Return the checkpoints that the graph loads, in its order, each once."""
    named = (
        node["inputs"].get("ckpt_name") for node in graph.values() if node["class_type"].startswith("CheckpointLoader")
    )
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def wanted(graph: Graph) -> str | None:
    """Return what the engine will have loaded after the graph, by one name; None when it loads no checkpoint."""
    return " + ".join(checkpoints(graph)) or None


def work(graph: Graph) -> float:
    """Return the size of a graph in step-megapixels: its steps, each on all that it begins with; 1.0 without either."""
    steps = sum(_count(node["inputs"].get("steps")) for node in graph.values())
    return bounded_work(steps * sum(_pixels(node) for node in graph.values()) / 1e6)


def samplers(graph: Graph) -> list[str]:
    """Return the samplers that the graph names, each once."""
    named = (node["inputs"].get("sampler_name") for node in graph.values())
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def bounded_pixels(graph: Graph, *, at: str, max_pixels: int) -> int:
    """Return the pixels of all that the graph begins with nothing but a size. Raises Rejected if they are too many."""
    total = 0
    for node_id, node in graph.items():
        if pixels := _pixels(node):
            inputs = node["inputs"]
            width, height, count = (_count(inputs.get(name)) for name in _SIZES)
            total += pixels
            if total > max_pixels:
                raise Rejected(
                    f"node {node_id} ({node['class_type']}) makes {width} x {height} pixels, {count or 1} times; "
                    f"at most {max_pixels} (max_pixels) are rendered for one task",
                    field=f"{at}.{node_id}.inputs.width",
                )
    return total


def step_weights(graph: Graph) -> dict[str, int]:
    """Return how much of the whole each node is worth: its steps, where it takes steps."""
    return {node_id: max(1, _count(node["inputs"].get("steps"))) for node_id, node in graph.items()}


def _checked(graph: Any, at: str) -> Graph:
    if not isinstance(graph, dict) or not graph:
        raise _wrong(at, graph, "must be a graph: an object of nodes by their ids")
    if isinstance(graph.get("nodes"), list):
        raise Rejected(
            f"{at} is a workflow as the editor saves it; the engine wants it exported in the API format", field=at
        )
    for node_id, node in graph.items():
        where = f"{at}.{node_id}"
        if not isinstance(node, dict):
            raise _wrong(where, node, "must be a node: an object with class_type and inputs")
        if not isinstance(node.get("class_type"), str) or not node["class_type"]:
            raise _wrong(f"{where}.class_type", node.get("class_type"), "must be the name of a node's class")
        if not isinstance(node.get("inputs"), dict):
            raise _wrong(f"{where}.inputs", node.get("inputs"), "must be an object")
        for name, value in node["inputs"].items():
            if isinstance(value, list) and len(value) == 2 and is_link(value) and value[0] not in graph:
                raise Rejected(
                    f"{where}.inputs.{name} comes from node {shorten(value[0])}, which is not in the graph",
                    field=f"{where}.inputs.{name}",
                )
    return graph


def _pixels(node: Mapping[str, Any]) -> int:
    """Return the pixels of what a node begins with nothing but a size; 0 for every other node."""
    width, height, count = (_count(node["inputs"].get(name)) for name in _SIZES)
    return width * height * (count or 1) if node["class_type"].startswith("Empty") else 0


def _is_minus_one(value: Any) -> bool:
    """Tell a seed that is left to chance, in any spelling that the engine would read as -1."""
    if isinstance(value, str):
        return value.strip() == "-1"
    return isinstance(value, int | float) and not isinstance(value, bool) and value == -1


def _count(value: Any) -> int:
    """Return a whole number of at least 0, from text too, as the engine reads it; 0 for anything else."""
    if isinstance(value, str) and value.isdecimal() and value.isascii() and len(value) < 12:
        value = int(value)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12 else 0


def _wrong(field: str, value: Any, right: str) -> Rejected:
    return Rejected(f"{field} is {shorten(value)}: it {right}", field=field)
