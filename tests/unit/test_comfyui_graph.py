"""Graphs: what is refused before the engine sees it, seeds, walks, sizes, and batches taken apart."""

import copy

import pytest
from comfy_client import flat, node, sampled
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.errors import Rejected
from scheduler.domain.pace import MAX_WORK, MIN_WORK
from scheduler.engines.comfyui_batch import one_at_a_time, original
from scheduler.engines.comfyui_golden import golden, provable
from scheduler.engines.comfyui_graph import (
    SEEDS,
    WANTING,
    ancestors,
    bounded_pixels,
    checkpoints,
    is_link,
    links,
    pin_seeds,
    read,
    samplers,
    seed_of,
    wanted,
    work,
)

IDS = st.sampled_from(["1", "2", "3", "4", "5", "6"])
VALUES = st.one_of(
    st.tuples(IDS, st.integers(0, 2)).map(list),
    st.integers(-2, 5),
    st.sampled_from(["-1", "x", None, -1.0, True]),
)
NODES = st.builds(
    lambda class_type, inputs: {"class_type": class_type, "inputs": inputs},
    st.sampled_from(["KSampler", "KSamplerAdvanced", "RandomNoise", "SaveImage", "EmptyLatentImage", "Seed (rgthree)"]),
    st.dictionaries(st.sampled_from([*SEEDS, "model", "samples", "batch_size"]), VALUES, max_size=4),
)
GRAPHS = st.dictionaries(IDS, NODES, min_size=1, max_size=6)
"""Graphs with links to nowhere, and circles, too."""


@given(GRAPHS)
def test_the_work_of_a_graph_is_known_whatever_it_holds(graph):
    assert MIN_WORK <= work(graph) <= MAX_WORK


# shape


@pytest.mark.parametrize(
    ("payload", "field", "words"),
    [
        ({}, "payload", "must be a graph"),
        ({"prompt": "a cat"}, "payload.prompt", "must be a graph"),
        ({"prompt": None}, "payload.prompt", "must be a graph"),
        ({"prompt": {}}, "payload.prompt", "must be a graph"),
        ({"prompt": {"nodes": [], "links": []}}, "payload.prompt", "API format"),
        ({"nodes": [], "links": []}, "payload", "API format"),
        ({"1": "x"}, "payload.1", "must be a node"),
        ({"prompt": {"1": {"inputs": {}}}}, "payload.prompt.1.class_type", "name of a node's class"),
        ({"1": {"class_type": ["x"], "inputs": {}}}, "payload.1.class_type", "name of a node's class"),
        ({"1": {"class_type": "X"}}, "payload.1.inputs", "must be an object"),
        ({"2": node("SaveImage", images=["7", 0])}, "payload.2.inputs.images", "not in the graph"),
        ({"prompt": flat(), "include_temp": "yes"}, "payload.include_temp", "true or false"),
        ({"prompt": flat(), "extra_data": []}, "payload.extra_data", "an object"),
        ({"prompt": flat(), "partial_execution_targets": {}}, "payload.partial_execution_targets", "a list"),
    ],
)
def test_what_is_no_graph_is_refused_by_its_field(payload, field, words):
    with pytest.raises(Rejected, match=words) as caught:
        read(payload)
    assert caught.value.field == field


def test_a_graph_comes_bare_or_as_the_prompt_of_an_api_client():
    bare, wrapped = read(flat()), read({"prompt": flat(), "client_id": "theirs", "front": True, "number": 3})
    assert bare.graph == wrapped.graph == flat()
    assert (bare.at, wrapped.at) == ("payload", "payload.prompt")
    assert wrapped.extra == {}, "whose client it is, and where it stands in the queue, is ours to say"
    assert read({"prompt": flat(), "extra_data": {"a": 1}}).extra == {"extra_data": {"a": 1}}


def test_a_node_may_be_called_prompt():
    graph = {"prompt": node("EmptyImage"), "2": node("SaveImage", images=["prompt", 0])}
    assert read(graph).graph == graph


@pytest.mark.parametrize(
    ("value", "is_one"),
    [(["1", 0], True), (["1", True], False), (["1"], False), ([1, 0], False), ([512, 768], False), ("1", False)],
)
def test_links(value, is_one):
    assert is_link(value) is is_one


# seeds


@given(graph=GRAPHS, key=st.text(max_size=8))
def test_no_random_seed_is_left_and_nothing_else_is_touched(graph, key):
    before = copy.deepcopy(graph)
    pinned = pin_seeds(graph, key)
    assert graph == before
    for node_id, made in pinned.items():
        given_inputs, inputs = graph[node_id]["inputs"], made["inputs"]
        wanted = WANTING.get(made["class_type"])
        for name in {*given_inputs, *inputs}:
            was, now = given_inputs.get(name), inputs.get(name)
            left_to_chance = name in SEEDS and (str(was) in {"-1", "-1.0"} or (was is None and name == wanted))
            if left_to_chance:
                assert type(now) is int
                assert 0 <= now < 2**32
            else:
                assert now == was
    assert pin_seeds(pinned, "another") == pinned
    assert pin_seeds(graph, key) == pinned


@given(first=st.integers(1, 10**6), second=st.integers(1, 10**6))
def test_each_run_has_its_own_seeds(first, second):
    seeds = [pin_seeds(sampled(seed=-1), f"t:{run}")["3"]["inputs"]["seed"] for run in (first, second)]
    assert (seeds[0] == seeds[1]) == (first == second)


def test_each_node_has_its_own_seed():
    graph = sampled(seed=-1) | {"13": node("KSampler", latent_image=["3", 0])}
    pinned = pin_seeds(graph, "t:1")
    assert pinned["3"]["inputs"]["seed"] != pinned["13"]["inputs"]["seed"]


def test_a_seed_that_comes_from_another_node_stays_a_link():
    graph = {"1": node("Seed (rgthree)", seed=-1), "3": node("KSampler", seed=["1", 0])}
    pinned = pin_seeds(graph, "t:1")
    assert pinned["3"]["inputs"]["seed"] == ["1", 0]
    assert seed_of(pinned, "3") == pinned["1"]["inputs"]["seed"] >= 0


def test_the_seed_of_a_picture_is_told_only_when_there_is_one():
    assert seed_of(sampled(seed=5), "9") == 5
    assert seed_of(sampled(seed=5) | {"13": node("KSampler", seed=6)}, "9") == 5
    two = sampled(seed=5) | {"5": node("KSampler", seed=6)}
    assert seed_of(two, "9") is None
    assert seed_of(flat(), "2") is None
    assert seed_of(flat(), "nowhere") is None


# walks


@given(graph=GRAPHS, start=IDS)
def test_a_walk_ends_and_holds_whatever_can_be_reached(graph, start):
    found = ancestors(graph, start)
    assert (start in found) == (start in graph)
    assert found <= graph.keys()
    for node_id in found:
        assert {origin for origin in links(graph[node_id]) if origin in graph} <= found


def test_what_a_graph_loads_and_samples_with():
    graph = sampled() | {
        "40": node("CheckpointLoader", ckpt_name="b.ckpt", config_name="x"),
        "41": node("CheckpointLoaderSimple", ckpt_name="standin-dawn.safetensors"),
        "42": node("CheckpointLoaderSimple", ckpt_name=["1", 0]),
    }
    assert checkpoints(graph) == ["standin-dawn.safetensors", "b.ckpt"]
    assert wanted(graph) == "standin-dawn.safetensors + b.ckpt"
    assert wanted(flat()) is None
    assert samplers(graph) == ["euler"]
    assert provable(graph) == "standin-dawn.safetensors"
    assert provable(flat()) is None


@pytest.mark.parametrize("value", [1024, "1024", 1024.0])
def test_sizes_are_bounded_before_anything_is_rendered(value):
    graph = sampled(batch=2)
    graph["5"]["inputs"] |= {"width": value, "height": 1024}
    assert bounded_pixels(graph, at="payload", max_pixels=1 << 21) == 1 << 21
    with pytest.raises(Rejected, match="max_pixels") as caught:
        bounded_pixels(graph, at="payload", max_pixels=(1 << 21) - 1)
    assert caught.value.field == "payload.5.inputs.width"


@pytest.mark.parametrize("value", [None, "wide", -5, True, ["1", 0], 1e300, {"a": 1}])
def test_a_size_that_is_none_is_the_engines_to_refuse(value):
    graph = sampled()
    graph["5"]["inputs"]["width"] = value
    assert bounded_pixels(graph, at="payload", max_pixels=1) == 0


# batches


@given(batch=st.integers(2, 64))
def test_a_batch_is_taken_apart_whole(batch):
    graph = sampled(batch=batch)
    split = one_at_a_time(graph)
    assert sorted({original(node_id) for node_id in split}) == sorted(graph)
    assert [node_id for node_id in split if node_id.startswith("9")] == [f"9.copy{n}" for n in range(batch)]
    for place in range(batch):
        above = ancestors(split, f"9.copy{place}")
        (part,) = [split[one]["inputs"] for one in above if split[one]["class_type"] == "LatentFromBatch"]
        assert (part["batch_index"], part["length"]) == (place, 1)
        assert {original(one) for one in above} == ancestors(graph, "9")
    assert all(origin in split for made in split.values() for origin in links(made))


@pytest.mark.parametrize(
    "graph",
    [
        sampled(),
        sampled(batch=65),
        flat(),
        sampled(batch=2) | {"50": node("EmptySD3LatentImage", width=64, height=64, batch_size=2)},
        sampled(batch=2) | {"50.copy1": node("PreviewAny", source="x")},
    ],
)
def test_what_cannot_be_taken_apart_is_left_alone(graph):
    assert one_at_a_time(graph) is None


@given(graph=GRAPHS)
def test_taking_apart_ends_and_loses_no_node_whatever_the_graph(graph):
    split = one_at_a_time(graph)
    assert split is None or {original(node_id) for node_id in split} == graph.keys()


def test_the_golden_graph_is_a_graph_and_differs_each_time():
    for checkpoint in (None, "a.safetensors"):
        first, second = (read(golden(seed, checkpoint).payload) for seed in (1, 2))
        assert first.include_temp
        assert first.graph != second.graph
        assert checkpoints(first.graph) == ([checkpoint] if checkpoint else [])
