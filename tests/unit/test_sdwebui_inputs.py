"""Pictures by address in A1111 payloads: found wherever a picture belongs, and nowhere else."""

from __future__ import annotations

import base64
import contextlib
from functools import partial
from typing import Any

import pytest
from fakes import FakeInputs
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.errors import Counts, Rejected, Transient
from scheduler.engines import sdwebui_inputs
from scheduler.engines.ration import Rationed
from scheduler.engines.sdwebui_inputs import with_pictures

URL = "https://pictures.example/cat.png"
S3 = "s3://inputs/mask.png"


@pytest.fixture
def inputs() -> FakeInputs:
    made = FakeInputs()
    made.add(URL)
    made.add(S3, color="white")
    return made


def encoded(inputs: FakeInputs, address: str) -> str:
    return base64.b64encode(inputs.images[address]).decode()


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"init_images": ["aGk=", URL]}, "payload.init_images.1"),
        ({"mask": URL}, "payload.mask"),
        ({"image": URL}, "payload.image"),
        ({"imageList": [{"name": "a", "data": URL}]}, "payload.imageList.0.data"),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{"input_image": URL, "module": "canny"}]}}},
            "payload.alwayson_scripts.ControlNet.args.0.input_image",
        ),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{"image": {"image": URL, "mask": None}}]}}},
            "payload.alwayson_scripts.ControlNet.args.0.image.image",
        ),
        (
            {"alwayson_scripts": {"ControlNet": {"args": [{"multi_inputs_gallery": [URL], "prompts": [URL]}]}}},
            "payload.alwayson_scripts.ControlNet.args.0.multi_inputs_gallery.0",
        ),
        ({"alwayson_scripts": {"reactor": {"args": [URL, True, "0"]}}}, "payload.alwayson_scripts.reactor.args.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_address_where_a_picture_belongs_becomes_the_picture(inputs, payload, field):
    made = with_pictures(payload, inputs)
    assert inputs.asked == [(URL, field)]
    assert str(made).count(URL) == str(payload).count(URL) - 1
    assert encoded(inputs, URL) in str(made)


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt": URL, "negative_prompt": S3},
        {"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "face.pt", "ad_prompt": URL}]}}},
        {"alwayson_scripts": {"ADetailer": {"args": [{"ad_prompts": [URL], "image_prompt": URL, "mask_text": URL}]}}},
        {"alwayson_scripts": {"script": {"args": [True, "http://www in neon letters, a street"]}}},
        {"alwayson_scripts": {"AnimateDiff": {"args": [{"model": "mm.ckpt", "video_length": 16}]}}},
        {"alwayson_scripts": {"odd": ["no args"], "odder": {"else": URL}}},
        {"init_images": ["data:image/png;base64,aGk=", "aGk="], "mask": None},
        {"init_images": URL, "imageList": [URL, {"name": URL}]},
    ],
)
def test_what_is_no_picture_passes_untouched(inputs, payload):
    assert with_pictures(payload, inputs) == payload
    assert inputs.asked == []


def test_a_picture_named_many_times_is_bounded_by_what_comes_of_it(inputs, monkeypatch):
    size_bytes = len(inputs.images[URL])
    monkeypatch.setattr(sdwebui_inputs, "MOST_BYTES", 3 * size_bytes)
    assert len(with_pictures({"init_images": [URL] * 3}, inputs)["init_images"]) == 3
    with pytest.raises(Rejected, match=f"more than {3 * size_bytes} bytes") as caught:
        with_pictures({"init_images": [URL] * 3, "mask": URL}, inputs)
    assert caught.value.field == "payload.init_images.2"


def test_pictures_that_take_too_long_together_are_tried_again_later(inputs, monkeypatch):
    now = iter(range(0, 1000, 25))
    monkeypatch.setattr(sdwebui_inputs, "Rationed", partial(Rationed, monotonic=lambda: float(next(now))))
    with pytest.raises(Transient, match="more than 60 s") as caught:
        with_pictures({"init_images": [URL] * 3}, inputs)
    assert (caught.value.counts, caught.value.field) == (Counts.TRY, "payload.init_images.2")
    assert len(inputs.asked) == 2


def test_several_pictures_are_each_put_in_their_place(inputs):
    made = with_pictures({"init_images": [URL], "mask": S3, "prompt": "a cat"}, inputs)
    assert made == {"init_images": [encoded(inputs, URL)], "mask": encoded(inputs, S3), "prompt": "a cat"}


@pytest.mark.parametrize("address", ["file:///etc/passwd", "gopher://x/", "http://169.254.169.254/latest"])
def test_what_may_not_be_gone_to_is_refused_by_its_field(inputs, address):
    with pytest.raises(Rejected) as caught:
        with_pictures({"mask": address}, inputs)
    assert caught.value.field == "payload.mask"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="ab:/ ", max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["args", "image", "data", "x"]), inner),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["init_images", "mask", "image", "imageList", "alwayson_scripts", "prompt"]), json_values
    )
)
def test_any_payload_is_settled_and_none_is_changed_in_place(payload: dict[str, Any]):
    before = repr(payload)
    with contextlib.suppress(Rejected):
        with_pictures(payload, FakeInputs())
    assert repr(payload) == before
