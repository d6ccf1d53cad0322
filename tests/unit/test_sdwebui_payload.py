"""What is checked, completed and pinned in a payload before any engine sees it."""

import base64
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task, TaskType
from scheduler.engines.sdwebui_names import Samplers
from scheduler.engines.sdwebui_payload import choose_sampler, draft, encode, one_at_a_time, wanted_checkpoint

TXT, IMG, ONE, MANY = TaskType.TXT2IMG, TaskType.IMG2IMG, TaskType.EXTRA_SINGLE, TaskType.EXTRA_BATCH
MAX_PIXELS = 1 << 20


def image(size=(64, 48), fmt="PNG") -> str:
    out = io.BytesIO()
    Image.new("RGB", size, (9, 99, 199)).save(out, fmt)
    return base64.b64encode(out.getvalue()).decode()


def made(payload, kind=TXT, seed_key="task-1:1"):
    return draft(kind, payload, seed_key=seed_key, max_pixels=MAX_PIXELS)


def refusal(payload, kind=TXT) -> Rejected:
    with pytest.raises(Rejected) as caught:
        made(payload, kind)
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "many"),
        ("steps", "--5"),
        ("seed", "+-5"),
        ("steps", 0),
        ("steps", -1),
        ("steps", 2.5),
        ("steps", None),
        ("steps", True),
        ("steps", [20]),
        ("width", 0),
        ("width", -64),
        ("width", 7),
        ("height", "tall"),
        ("height", None),
        ("batch_size", 0),
        ("n_iter", 0),
        ("n_iter", {}),
        ("seed", "x"),
        ("seed", 1.5),
        ("seed", 1 << 70),
        ("cfg_scale", "high"),
        ("cfg_scale", float("nan")),
        ("cfg_scale", float("inf")),
        ("denoising_strength", []),
        ("hr_scale", 1e300),
        ("prompt", None),
        ("prompt", ["a", "b"]),
        ("prompt", "half \ud800"),
        ("negative_prompt", 3),
        ("override_settings", "x"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(field, value):
    error = refusal({"prompt": "a cat", field: value})
    assert error.field == f"payload.{field}"
    assert ascii(value)[:20] in error.message


def test_numbers_in_text_are_read_as_the_engine_reads_them():
    body = made({"prompt": "x", "steps": "20", "width": 512.0, "cfg_scale": "7.5"}).body
    assert (body["steps"], body["width"], body["cfg_scale"]) == (20, 512, 7.5)


def test_images_are_asked_for_and_not_saved_at_the_engine():
    body = made(
        {
            "prompt": "x",
            "send_images": False,
            "save_images": True,
            "do_not_save_samples": False,
            "do_not_save_grid": True,
        }
    ).body
    assert body["send_images"] is True
    assert body["save_images"] is False
    assert not [name for name in body if name.startswith("do_not_save")]


def test_what_is_not_ours_is_left_alone():
    scripts = {"controlnet": {"args": [{"image": "x", "weight": 1.25, "nested": {"a": [None]}}]}}
    payload = {"prompt": "x", "alwayson_scripts": scripts, "styles": ["a"], "enable_hr": False, "unknown_to_us": 1}
    body = json.loads(encode(made(payload).body))
    assert {name: body[name] for name in payload} == payload


def test_the_payload_itself_is_not_changed():
    payload = {"prompt": "x", "seed": -1, "override_settings": {"a": 1}, "save_images": True, "steps": "20"}
    before = json.dumps(payload)
    made(payload)
    assert json.dumps(payload) == before


def test_settings_are_always_restored_afterwards():
    result = made({"prompt": "x", "override_settings_restore_afterwards": False})
    assert "override_settings_restore_afterwards" not in result.body
    assert "restored after every task" in result.warnings[0]
    assert not made({"prompt": "x", "override_settings_restore_afterwards": True}).warnings


# seeds


@pytest.mark.parametrize("payload", [{}, {"seed": -1}, {"seed": None}, {"seed": "-1"}])
def test_a_random_seed_is_fixed_by_task_and_run(payload):
    seed = made(payload).body["seed"]
    assert 0 <= seed < 1 << 32
    assert made(payload).body["seed"] == seed
    assert made(payload, seed_key="task-1:2").body["seed"] != seed


@pytest.mark.parametrize("seed", [0, 1, 4294967295, -5])
def test_a_given_seed_stays(seed):
    assert made({"seed": seed}).body["seed"] == seed


def test_subseeds_are_fixed_only_where_they_count():
    assert "subseed" not in made({"seed": 1}).body
    assert made({"subseed": -1}).body["subseed"] == -1
    pinned = made({"subseed": -1, "subseed_strength": 0.2}).body
    assert 0 <= pinned["subseed"] != pinned["seed"]
    assert made({"subseed": 7, "subseed_strength": 0.2}).body["subseed"] == 7


# how much


def test_the_pixels_of_all_pictures_are_bounded():
    assert made({"width": 1024, "height": 1024}).pixels == MAX_PIXELS
    error = refusal({"width": 1024, "height": 1032})
    assert (error.field, str(1024 * 1032) in error.message) == ("payload.width", True)
    assert refusal({"width": 512, "height": 512, "batch_size": 2, "n_iter": 3}).field == "payload.batch_size"
    assert refusal({"batch_size": 10**18}).field == "payload.batch_size"


@pytest.mark.parametrize(
    "hires",
    [{}, {"hr_scale": 3}, {"hr_resize_x": 2048}, {"hr_resize_y": 2048}, {"hr_resize_x": 2048, "hr_resize_y": 2048}],
)
def test_the_second_pass_counts(hires):
    payload = {"width": 768, "height": 768, **hires}
    assert made(payload).images == 1
    assert "pixels" in refusal(payload | {"enable_hr": True}).message


@pytest.mark.parametrize(
    ("payload", "images"), [({}, 1), ({"batch_size": 2, "n_iter": 2, "width": 256, "height": 256}, 4)]
)
def test_how_many_images_must_come(payload, images):
    assert made(payload).images == images


def test_the_estimate_bounds_request_and_answer():
    result = made({"width": 512, "height": 512})
    assert result.estimate_bytes(b"x" * 1000) > 1000 + 512 * 512 * 4 * 4 // 3


def test_odd_sizes_are_warned_of():
    assert [warning[:9] for warning in made({"width": 65, "height": 64}).warnings] == ["width 65 "]


# images


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_images_bare_or_as_data_uri_go_on_as_they_are(fmt, prefix):
    payload = {"prompt": "x", "init_images": [prefix + image(fmt=fmt)], "mask": image(), "width": 64, "height": 64}
    result = made(payload, IMG)
    assert result.body["init_images"] == payload["init_images"]
    assert result.images == 1


@pytest.mark.parametrize(
    ("images", "field"),
    [
        (None, "payload.init_images"),
        ([], "payload.init_images"),
        ("text", "payload.init_images"),
        ([None], "payload.init_images.0"),
        (["!!!"], "payload.init_images.0"),
        ([""], "payload.init_images.0"),
        ([base64.b64encode(b"no image").decode()], "payload.init_images.0"),
        ([image(), "aGVsbG8="], "payload.init_images.1"),
        ([image((2048, 1024))], "payload.init_images.0"),
        ([image()[:100] + "===="], "payload.init_images.0"),
    ],
)
def test_what_is_no_image_is_refused(images, field):
    payload = {"prompt": "x"} if images is None else {"prompt": "x", "init_images": images}
    assert refusal(payload, IMG).field == field


@pytest.mark.parametrize("name", ["mask", "latent_mask"])
def test_masks_are_checked_too(name):
    assert refusal({"init_images": [image()], name: "bm90IGFuIGltYWdl"}, IMG).field == f"payload.{name}"


def test_several_images_are_one_batch():
    two = {"init_images": [image(), image()], "width": 64, "height": 64}
    assert refusal(two, IMG).field == "payload.init_images"
    assert made(two | {"batch_size": 4, "n_iter": 3}, IMG).images == 6


def test_extras_count_pixels_as_they_come_out():
    single = {"image": image((256, 256)), "upscaler_1": "Lanczos"}
    assert made(single | {"upscaling_resize": 4}, ONE).pixels == MAX_PIXELS
    assert refusal(single | {"upscaling_resize": 4.1}, ONE).field == "payload.upscaling_resize"
    assert refusal(single | {"upscaling_resize": 0}, ONE).field == "payload.upscaling_resize"
    assert made({"image": image((256, 256)), "upscaling_resize": 8}, ONE).pixels == 256 * 256
    wide = single | {"resize_mode": 1, "upscaling_resize_w": 2048, "upscaling_resize_h": 1024}
    assert refusal(wide, ONE).field == "payload.upscaling_resize_w"


def test_extras_in_batches():
    entries = [{"data": image(), "name": "a.png"}, {"data": image(), "name": "b.png"}]
    assert made({"imageList": entries}, MANY).images == 2
    for bad, field in [
        ([], "payload.imageList"),
        ([{"data": image()}], "payload.imageList.0"),
        ([entries[0], {"name": "b"}], "payload.imageList.1.data"),
    ]:
        assert refusal({"imageList": bad}, MANY).field == field


def test_a_pipeline_is_not_for_this_engine():
    assert refusal({}, TaskType.PIPELINE).field == "task_type"


# samplers

SAMPLERS = Samplers(
    [{"name": "DPM++ 2M", "aliases": []}, {"name": "Euler a", "aliases": ["k_euler_a"]}], [{"label": "Karras"}]
)


@pytest.mark.parametrize(
    ("given", "sampler", "scheduler"),
    [
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "euler A", "scheduler": "karras"}, "Euler a", "Karras"),
        ({"sampler_name": "", "sampler_index": "k_euler_a"}, "Euler a", None),
        ({"sampler_name": None}, None, None),
        ({}, None, None),
    ],
)
def test_samplers_get_the_engines_own_names(given, sampler, scheduler):
    body = dict(given)
    assert choose_sampler(body, SAMPLERS) == sampler
    assert body.get("scheduler") == scheduler
    if sampler:
        assert body["sampler_name"] == sampler


@pytest.mark.parametrize(
    ("given", "field", "near"),
    [
        ({"sampler_name": "NoSuch"}, "sampler_name", "DPM++ 2M"),
        ({"sampler_index": "Eular a"}, "sampler_index", "one of Euler a"),
        ({"sampler_name": 7}, "sampler_name", "name"),
        ({"sampler_name": "Euler a", "scheduler": "Karas"}, "scheduler", "Karras"),
    ],
)
def test_unknown_samplers_are_refused_naming_some(given, field, near):
    with pytest.raises(Rejected) as caught:
        choose_sampler(dict(given), SAMPLERS)
    assert caught.value.field == f"payload.{field}"
    assert near in caught.value.message


def test_without_a_list_names_stay_as_they_are():
    body = {"sampler_name": "whatever", "scheduler": "any"}
    assert choose_sampler(body, None) == "whatever"
    assert body == {"sampler_name": "whatever", "scheduler": "any"}


# one at a time


def test_one_at_a_time_makes_the_same_pictures():
    body = json.loads(one_at_a_time(encode({"prompt": "x", "seed": 5, "batch_size": 4, "n_iter": 2})))
    assert body == {"prompt": "x", "seed": 5, "batch_size": 1, "n_iter": 8}


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"batch_size": 1}, {"batch_size": 2, "init_images": ["a", "b"]}])
def test_what_cannot_be_cut_smaller(body):
    assert one_at_a_time(encode(body)) is None


LEAF = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        7,
        8,
        512,
        10**6,
        10**30,
        0.5,
        1e308,
        float("nan"),
        "",
        "-1",
        "20",
        "x",
        "\ud800",
        "None",
    ]
)
JSON = LEAF | st.lists(LEAF, max_size=2) | st.dictionaries(st.sampled_from(["data", "name", "a"]), LEAF, max_size=2)
FIELDS = st.sampled_from(
    [
        *("width", "height", "steps", "batch_size", "n_iter", "seed", "subseed"),
        *("subseed_strength", "cfg_scale", "prompt", "init_images", "mask", "image", "imageList"),
        *("upscaler_1", "upscaling_resize", "resize_mode", "enable_hr", "hr_scale", "hr_resize_x", "override_settings"),
        *("sampler_name", "sampler_index", "scheduler"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(TaskType), payload=st.dictionaries(FIELDS, JSON, max_size=6))
def test_any_payload_is_either_encoded_or_refused(kind, payload):
    try:
        result = made(payload, kind)
        choose_sampler(result.body, SAMPLERS)
        body = encode(result.body)
    except Rejected:
        return
    assert result.estimate_bytes(body) < 16 * MAX_PIXELS + len(body) + result.images * 20_000


@pytest.mark.parametrize(
    ("checkpoint", "override", "wanted"),
    [
        (None, None, None),
        ("a", None, "a"),
        ("a", {}, "a"),
        ("a", {"sd_model_checkpoint": "b"}, "b"),
        (None, {"sd_model_checkpoint": "b"}, "b"),
        ("a", {"sd_model_checkpoint": ""}, "a"),
        ("a", {"sd_model_checkpoint": None}, "a"),
        ("a", {"sd_model_checkpoint": ["b"]}, "a"),
        ("a", "b", "a"),
    ],
)
def test_the_payloads_own_checkpoint_goes_before_the_tasks_field(checkpoint, override, wanted):
    assert (
        wanted_checkpoint(
            Task(
                task_id="t1",
                task_type=TaskType.TXT2IMG,
                payload={"override_settings": override},
                fingerprint="f",
                checkpoint=checkpoint,
            )
        )
        == wanted
    )
