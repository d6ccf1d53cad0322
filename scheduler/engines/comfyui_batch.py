"""A ComfyUI graph made smaller: the pictures of a batch rendered one after the other; pure."""

from __future__ import annotations

from typing import Any

from scheduler.engines.comfyui_graph import Graph, is_link, links

_SPLITTER = "LatentFromBatch"
_MARK = ".copy"
_MOST = 64
"""Places in a batch that the splitter can name."""


def one_at_a_time(graph: Graph) -> Graph | None:
    """Return a graph that makes the same pictures, each by itself; None if this one cannot be split.

    The batch stays whole as an empty latent, which is small. What follows is there once for each picture, on a latent
    that keeps its place in the batch, for the engine draws a picture's noise by seed and place.
    """
    batches = [
        (node_id, node["inputs"]["batch_size"])
        for node_id, node in graph.items()
        if node["class_type"].startswith("Empty")
        and "Latent" in node["class_type"]
        and isinstance(node["inputs"].get("batch_size"), int)
        and node["inputs"]["batch_size"] > 1
    ]
    if len(batches) != 1 or batches[0][1] > _MOST or any(original(node_id) != node_id for node_id in graph):
        return None
    source, count = batches[0]
    after = _descendants(graph, source)
    split: dict[str, Any] = {}
    for node_id, node in graph.items():
        if node_id not in after:
            split[node_id] = node
        if node_id == source:
            for place in range(count):
                inputs = {"samples": [source, 0], "batch_index": place, "length": 1}
                split[_copy(source, place)] = {"class_type": _SPLITTER, "inputs": inputs}
        elif node_id in after:
            for place in range(count):
                inputs = {name: _moved(value, place, after | {source}) for name, value in node["inputs"].items()}
                split[_copy(node_id, place)] = {**node, "inputs": inputs}
    return split


def original(node_id: str) -> str:
    """Return the id that a copied node had."""
    return node_id.partition(_MARK)[0]


def _copy(node_id: str, place: int) -> str:
    return f"{node_id}{_MARK}{place}"


def _moved(value: Any, place: int, copied: set[str]) -> Any:
    return [_copy(value[0], place), value[1]] if is_link(value) and value[0] in copied else value


def _descendants(graph: Graph, source: str) -> set[str]:
    """Return all that comes from a node, without it."""
    found: set[str] = set()
    grew = True
    while grew:
        new = {
            node_id
            for node_id, node in graph.items()
            if node_id not in found and any(origin == source or origin in found for origin in links(node))
        }
        found |= new
        grew = bool(new)
    return found - {source}
