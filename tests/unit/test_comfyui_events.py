"""Events folded into progress and a preview, whatever comes."""

import json
import struct

import pytest
from comfy_client import node, sampled
from hypothesis import given
from hypothesis import strategies as st

from scheduler.engines.comfyui_events import Track

GRAPH = sampled(steps=14)
"""Seven nodes, one of them worth 14: a whole of 20."""


def event(kind, **data):
    return json.dumps({"type": kind, "data": {"prompt_id": "p"} | data})


def track(*frames, at_s=10.0):
    made = Track("p", GRAPH)
    for frame in frames:
        made.take(frame, at_s)
    return made


START = event("execution_start")
PREVIEW = struct.pack(">II", 1, 1) + b"jpeg"


def test_nothing_is_told_before_the_beginning():
    assert track().progress(10.0) is None
    assert track(event("execution_start", prompt_id="another")).progress(10.0) is None


@pytest.mark.parametrize(
    ("frames", "percent", "step", "name"),
    [
        ([], 0, 0, None),
        ([event("execution_cached", nodes=["4", "5"])], 10, 0, None),
        ([event("executing", node="6")], 0, 0, "CLIPTextEncode 6"),
        ([event("executing", node="6"), event("executing", node="3")], 5, 0, "KSampler 3"),
        ([event("progress", node="3", value=7, max=14)], 35, 7, "KSampler 3"),
        ([event("progress", node="3", value=7, max=14), event("executing", node="8")], 70, 0, "VAEDecode 8"),
        (
            [event("executing", node="3.0.1", display_node="3"), event("progress", node="3.0.1", value=7, max=14)],
            35,
            7,
            "KSampler 3",
        ),
        ([event("executed", node="9")], 5, 0, None),
        ([event("progress", node="3", value="x", max=14), event("progress", node="3", value=1, max=0)], 0, 0, None),
    ],
)
def test_progress_weighs_nodes_by_their_steps(frames, percent, step, name):
    seen = track(START, *frames).progress(10.0)
    assert (seen.percent, seen.step, seen.node) == (percent, step, name)


def test_the_name_of_a_node_is_short_enough_for_a_record():
    node_id = "n" * 450_000
    told = Track("p", {node_id: node("K" * 9000, steps=2)})
    told.take(event("executing", node=node_id), 0.0)
    seen = told.progress(1.0)
    assert seen is not None
    assert seen.node is not None
    assert len(seen.node) < 150


def test_the_time_left_is_guessed_from_the_time_spent():
    half = track(START, event("execution_cached", nodes=["4", "5", "6"]), event("progress", node="3", value=7, max=14))
    assert half.progress(20.0).percent == 50
    assert half.progress(20.0).eta_s == 10
    assert track(START).progress(20.0).eta_s == 0


@pytest.mark.parametrize("kind", ["execution_success", "execution_error", "execution_interrupted"])
def test_ends(kind):
    assert track(START, event(kind)).is_over
    assert not track(START, event(kind, prompt_id="another")).is_over


def test_the_mark_of_the_end():
    assert track(START, event("executing", node=None)).is_over


def test_previews_are_kept_while_the_prompt_runs():
    assert track(PREVIEW).preview is None
    seen = track(START, PREVIEW, struct.pack(">II", 1, 2) + b"png").preview
    assert (seen.data, seen.media_type) == (b"png", "image/png")
    later = track(START, PREVIEW, event("executing", node=None), struct.pack(">II", 1, 2) + b"another's")
    assert later.preview.data == b"jpeg"


@pytest.mark.parametrize("frame", [b"", b"\0\0\0\1", struct.pack(">II", 4, 1) + b"x", struct.pack(">II", 1, 9) + b"x"])
def test_other_binary_frames_are_passed_over(frame):
    assert track(START, frame).preview is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(["3", "9", "p", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["3", "x"]), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.lists(
        st.binary(max_size=12)
        | st.text(max_size=8)
        | st.builds(
            lambda kind, data: json.dumps({"type": kind, "data": {"prompt_id": "p"} | data}),
            st.sampled_from(["execution_start", "execution_cached", "executing", "progress", "executed", "status"]),
            st.dictionaries(st.sampled_from(["node", "nodes", "value", "max", "display_node"]), ANYTHING, max_size=4),
        ),
        max_size=12,
    )
)
def test_whatever_comes_is_a_share_of_the_whole(frames):
    seen = track(START, *frames).progress(12.0)
    assert 0 <= seen.percent <= 100
    assert seen.step >= 0
    assert seen.eta_s >= 0
