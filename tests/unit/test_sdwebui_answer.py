"""Answers with 200: what is kept, and the silent failures behind them."""

import base64
import io
import json

import pytest
from PIL import Image

from scheduler.domain.errors import BadResult, EngineLost, Rejected
from scheduler.domain.ports import PreparedRun
from scheduler.domain.task import Task, TaskType
from scheduler.engines.sdwebui_answer import SdWebUiAnswer
from scheduler.engines.sdwebui_names import Checkpoints

TITLE = "sd15-random.safetensors [3471f22757]"
KNOWN = Checkpoints(
    [
        {"title": TITLE, "model_name": "sd15-random", "hash": "3471f22757", "sha256": None, "filename": "/m/a"},
        {"title": "other.safetensors", "model_name": "other", "hash": None, "sha256": None, "filename": "/m/b"},
    ]
)


def picture(colour=200, fmt="PNG", size=(64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour, 10, 30)).save(out, fmt)
    return out.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def info(**changes):
    """What A1111 1.10.1 says of one picture, shortened to the keys that matter and some that do not."""
    return {
        "prompt": "a cat",
        "all_prompts": ["a cat"],
        "seed": 1,
        "all_seeds": [1, 2, 3, 4],
        "width": 64,
        "height": 64,
        "sampler_name": "Euler",
        "sd_model_name": "sd15-random",
        "sd_model_hash": "3471f22757",
        "sd_vae_name": None,
        "index_of_first_image": 0,
        "infotexts": ["a cat\nSteps: 1"],
        "version": "v1.10.1",
    } | changes


class Bytes:
    """A body that has come whole."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, most_bytes: int) -> bytes | None:
        return self.data if len(self.data) <= most_bytes else None


def body_of(images, about=None, **more) -> bytes:
    said = info() if about is None else about
    answer = {"images": images, "parameters": {"steps": 1}, "info": said if isinstance(said, str) else json.dumps(said)}
    return json.dumps(answer | more, separators=(",", ":")).encode()


def run_of(*, images=1, checkpoint=None, sampler=None, kind=TaskType.TXT2IMG, **payload) -> PreparedRun:
    task = Task(task_id="t", task_type=kind, payload=payload, fingerprint="")
    return PreparedRun(
        task=task,
        path="/sdapi/v1/txt2img",
        body=b"{}",
        image_count=images,
        checkpoint=checkpoint,
        sampler=sampler,
        estimate_bytes=1000,
        warnings=("from prepare",),
    )


def output(body: bytes, run: PreparedRun | None = None, learnt: list | None = None):
    return SdWebUiAnswer(
        Bytes(body),
        run or run_of(),
        checkpoints=KNOWN,
        max_pixels=1 << 20,
        learn=lambda title, is_right: learnt.append((title, is_right)) if learnt is not None else None,
    ).output()


def test_a_good_answer():
    data = [picture(n * 50) for n in range(4)]
    learnt = []
    got = output(body_of([b64(one) for one in data]), run_of(images=4, checkpoint=TITLE, sampler="Euler"), learnt)
    assert [image.data for image in got.images] == data
    assert [image.seed for image in got.images] == [1, 2, 3, 4]
    assert {(image.media_type, image.extension, image.width) for image in got.images} == {("image/png", ".png", 64)}
    assert (got.checkpoint, got.sampler, got.warnings) == (TITLE, "Euler", ("from prepare",))
    assert learnt == [(TITLE, True)]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("escaped", [False, True])
def test_the_same_whatever_the_json_looks_like(prefix, indent, escaped):
    answer = {
        "images": [prefix + b64(picture(7)), prefix + b64(picture(8))],
        "parameters": {},
        "info": json.dumps(info()),
    }
    body = json.dumps(answer, indent=indent, separators=(",", ":") if indent is None else None)
    if escaped:
        body = body.replace("/", "\\/")
    got = output(body.encode(), run_of(images=2))
    assert [image.data for image in got.images] == [picture(7), picture(8)]


@pytest.mark.parametrize(("fmt", "kind"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_the_servers_own_format_is_found_by_content(fmt, kind):
    assert output(body_of([b64(picture(fmt=fmt))])).images[0].media_type == kind


def test_another_model_than_asked_is_a_failure():
    learnt = []
    with pytest.raises(BadResult) as caught:
        output(body_of([b64(picture())]), run_of(checkpoint="other.safetensors"), learnt)
    assert "other.safetensors" in caught.value.message
    assert "sd15-random [3471f22757]" in caught.value.message
    assert learnt == [(TITLE, False)]


def test_the_same_name_with_another_hash_is_another_model():
    with pytest.raises(BadResult):
        output(body_of([b64(picture())], info(sd_model_hash="ffffffffff")), run_of(checkpoint=TITLE))


def test_a_checkpoint_that_is_no_longer_listed_is_still_checked():
    with pytest.raises(BadResult):
        output(body_of([b64(picture())]), run_of(checkpoint="gone.safetensors [0123456789]"))


def test_a_title_without_its_hash_is_the_same_model_once_loaded():
    said = info(sd_model_name="other", sd_model_hash="1234567890")
    assert output(body_of([b64(picture())], said), run_of(checkpoint="other.safetensors")).checkpoint == (
        "other.safetensors"
    )


def test_the_fallback_sampler_is_a_failure():
    with pytest.raises(Rejected) as caught:
        output(body_of([b64(picture())], info(sampler_name="DPM++ 2M")), run_of(sampler="NoSuch"))
    assert caught.value.field == "payload.sampler_name"
    assert "DPM++ 2M" in caught.value.message


def test_an_old_combined_sampler_name_is_no_fallback():
    got = output(body_of([b64(picture())], info(sampler_name="DPM++ 2M")), run_of(sampler="DPM++ 2M Karras"))
    assert got.sampler == "DPM++ 2M"


@pytest.mark.parametrize("came", [0, 1, 2])
def test_fewer_images_than_asked_is_a_failure(came):
    # An interrupt from elsewhere: 200, and all_seeds as if all had been made.
    with pytest.raises(BadResult, match=f"{came} of 3 images"):
        output(body_of([b64(picture())] * came), run_of(images=3))


def test_more_images_than_asked_are_left_out_with_a_warning():
    got = output(body_of([b64(picture(1)), b64(picture(2)), b64(picture(3))]), run_of(images=2))
    assert [image.data for image in got.images] == [picture(1), picture(2)]
    assert "1 more images" in got.warnings[1]


def test_grids_at_the_head_are_dropped():
    got = output(
        body_of([b64(picture(1)), b64(picture(2)), b64(picture(3))], info(index_of_first_image=1)), run_of(images=2)
    )
    assert [(image.data, image.seed) for image in got.images] == [(picture(2), 1), (picture(3), 2)]


def test_a_script_makes_as_many_as_it_likes():
    images = [b64(picture(n)) for n in range(6)]
    assert len(output(body_of(images), run_of(images=1, script_name="x/y/z plot")).images) == 6
    assert len(output(body_of(images[:1]), run_of(images=4, script_name="sd upscale")).images) == 1
    with pytest.raises(BadResult):
        output(body_of([]), run_of(images=1, script_name="x/y/z plot"))


@pytest.mark.parametrize(
    "broken",
    ["", "!!!!", b64(b"no image"), b64(picture()[:-30]), b64(picture())[:-16], b64(picture(size=(2048, 1024)))],
)
def test_an_image_that_cannot_be_used_is_a_failure(broken):
    with pytest.raises(BadResult, match="image 2"):
        output(body_of([b64(picture()), broken]), run_of(images=2))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"images":["',
        b'{"images":["a"',
        b'{"images":["a",3]}',
        b'{"images":[null]}',
        b"\xff",
        b"{}",
    ],
)
def test_a_body_that_is_no_answer_is_a_failure(body):
    with pytest.raises(BadResult):
        output(body)


def test_an_all_black_image_is_kept_with_a_warning():
    out = io.BytesIO()
    Image.new("RGB", (512, 512)).save(out, "PNG")
    got = output(body_of([b64(picture()), b64(out.getvalue())]), run_of(images=2))
    assert [image.all_black for image in got.images] == [False, True]
    assert got.warnings[1].startswith("image 2 is all black")


@pytest.mark.parametrize("said", ["a cat, Steps: 1", "", "[1]", "{}", json.dumps({"all_seeds": None})])
def test_builds_that_say_less_leave_it_unknown(said):
    got = output(body_of([b64(picture())], said), run_of(checkpoint=TITLE, sampler="Euler"))
    assert (got.checkpoint, got.sampler, got.images[0].seed) == (None, None, None)


def test_stable_diffusion_cpp():
    said = {
        "all_seeds": [42],
        "seed": 42,
        "sampler_name": "euler_a",
        "sd_model_name": "sd15-random",
        "version": "stable-diffusion.cpp",
    }
    got = output(body_of([b64(picture())], said), run_of(checkpoint=TITLE, sampler="Euler a"))
    assert (got.checkpoint, got.images[0].seed) == (TITLE, 42)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (TaskType.EXTRA_SINGLE, {"html_info": "", "image": b64(picture())}),
        (TaskType.EXTRA_BATCH, {"html_info": "", "images": [b64(picture())]}),
    ],
)
def test_extras_answer_in_their_own_shapes(kind, answer):
    got = output(json.dumps(answer).encode(), run_of(kind=kind))
    assert got.images[0].data == picture()
    assert (got.checkpoint, got.sampler, got.images[0].seed) == (None, None, None)


def test_an_answer_out_of_all_proportion_is_not_read(monkeypatch):
    monkeypatch.setattr("scheduler.engines.sdwebui_answer._LEAST_BOUND_BYTES", 1000)
    with pytest.raises(BadResult, match="larger than 2000 bytes"):
        output(b"x" * 2001)


def test_a_body_that_breaks_off_is_a_lost_engine():
    class Broken(Bytes):
        def read(self, most_bytes):
            raise EngineLost("gone")

    answer = SdWebUiAnswer(Broken(b""), run_of(), checkpoints=KNOWN, max_pixels=1, learn=lambda *_: None)
    with pytest.raises(EngineLost):
        answer.output()
