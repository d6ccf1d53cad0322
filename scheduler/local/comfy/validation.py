"""Whether a prompt may run, said in the real server's words: pure but for the room's lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scheduler.local.comfy.nodes import CLASSES, NodeClass
from scheduler.local.comfy.room import Room

LISTED_MOST = 20
Graph = Mapping[str, Any]
_CONVERT = {"INT": int, "FLOAT": float, "STRING": str}


@dataclass(slots=True)
class Verdict:
    """Which outputs will run; `error` is set when none will."""

    good: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


def error(kind: str, message: str, details: str = "") -> dict[str, Any]:
    """Return an error of the whole prompt."""
    return {"type": kind, "message": message, "details": details, "extra_info": {}}


def validate(graph: Graph, room: Room) -> Verdict:
    """Judge a prompt; numbers in text are turned into numbers where they will run, as the real one does."""
    outputs = []
    for node_id, node in graph.items():
        if "class_type" not in node:
            words = "Cannot execute because a node is missing the class_type property."
            return Verdict(error=error("invalid_prompt", words, f"Node ID '#{node_id}'"))
        known = CLASSES.get(node["class_type"])
        if known is None:
            words = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict(error=error("invalid_prompt", words, f"Node ID '#{node_id}'"))
        if known.is_output:
            outputs.append(node_id)
    if not outputs:
        return Verdict(error=error("prompt_no_outputs", "Prompt has no outputs"))
    verdict = Verdict()
    complaints: list[str] = []
    for output in outputs:
        found = _Walk(graph, room).problems(output)
        if not found:
            verdict.good.append(output)
        for node_id, problems in found.items():
            complaints += [f"{one['message']}: {one['details']}" for one in problems]
            entry = {"errors": problems, "dependent_outputs": [], "class_type": graph[node_id]["class_type"]}
            verdict.node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if not verdict.good:
        words = "Prompt outputs failed validation"
        verdict.error = error("prompt_outputs_failed_validation", words, "\n".join(complaints))
    return verdict


class _Walk:
    """One output's nodes, from it up to those that it comes from."""

    def __init__(self, graph: Graph, room: Room) -> None:
        self._graph = graph
        self._room = room
        self._seen: set[str] = set()
        self._path: list[str] = []
        self._problems: dict[str, list[dict[str, Any]]] = {}

    def problems(self, output: str) -> dict[str, list[dict[str, Any]]]:
        try:
            self._visit(output)
        except (KeyError, IndexError, TypeError, RecursionError) as wrong:
            name = type(wrong).__name__
            info = {"exception_type": name, "traceback": [f"{name}: {wrong}"]}
            self._problems[output] = [
                _problem("exception_during_validation", "Exception when validating node", str(wrong), info)
            ]
        return self._problems

    def _visit(self, node_id: str) -> None:
        if node_id in self._path:
            raise RecursionError("maximum recursion depth exceeded")
        if node_id in self._seen:
            return
        self._seen.add(node_id)
        self._path.append(node_id)
        node = self._graph[node_id]
        known, inputs = CLASSES[node["class_type"]], node["inputs"]
        found = []
        for name, (kind, options) in known.inputs.items():
            if name not in inputs:
                if name not in known.optional:
                    info = {"input_name": name}
                    found.append(_problem("required_input_missing", "Required input is missing", name, info))
            elif isinstance(inputs[name], list):
                found += self._link(name, kind if isinstance(kind, str) else "COMBO", inputs[name])
            else:
                found += _value(name, kind(self._room) if callable(kind) else kind, options, inputs)
        found += [] if found else _custom(known, self._room, inputs)
        if found:
            self._problems[node_id] = found
        self._path.pop()

    def _link(self, name: str, kind: str, link: list[Any]) -> list[dict[str, Any]]:
        if len(link) != 2:
            words = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [_problem("bad_linked_input", words, name, {"input_name": name, "received_value": link})]
        origin, slot = link
        received = CLASSES[self._graph[origin]["class_type"]].returns[slot]
        if "*" not in {kind, received} and received != kind:
            words = f"{name}, received_type({received}) mismatch input_type({kind})"
            info = {"input_name": name, "received_type": received, "linked_node": link}
            return [_problem("return_type_mismatch", "Return type mismatch between linked nodes", words, info)]
        self._visit(origin)
        return []


def _value(
    name: str, kind: str | list[str], options: Mapping[str, Any], inputs: dict[str, Any]
) -> list[dict[str, Any]]:
    value = inputs[name]
    if isinstance(kind, list):
        if value in kind or options.get("image_upload"):
            return []
        listed = f"(list of length {len(kind)})" if len(kind) > LISTED_MOST else str(kind)
        info = {"input_name": name, "received_value": value}
        return [_problem("value_not_in_list", "Value not in list", f"{name}: '{value}' not in {listed}", info)]
    convert = _CONVERT.get(kind)
    if convert is None:
        return []
    try:
        value = inputs[name] = convert(value)
    except (ValueError, TypeError) as wrong:
        words = f"Failed to convert an input value to a {kind} value"
        info = {"input_name": name, "received_value": value, "exception_message": str(wrong)}
        return [_problem("invalid_input_type", words, f"{name}, {value}, {wrong}", info)]
    info = {"input_name": name, "received_value": value}
    if "min" in options and value < options["min"]:
        words = f"Value {value} smaller than min of {options['min']}"
        return [_problem("value_smaller_than_min", words, name, info)]
    if "max" in options and value > options["max"]:
        words = f"Value {value} bigger than max of {options['max']}"
        return [_problem("value_bigger_than_max", words, name, info)]
    return []


def _custom(known: NodeClass, room: Room, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    if known.check is None:
        return []
    return [
        _problem(
            "custom_validation_failed", "Custom validation failed for node", f"{name} - {words}", {"input_name": name}
        )
        for name, words in known.check(room, inputs).items()
    ]


def _problem(kind: str, message: str, details: str, info: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": info}
