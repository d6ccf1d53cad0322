"""What is refused or warned about before a task is sent, and messages made out of options."""

from __future__ import annotations

import base64
import io
import json

import click
import pytest
from fakes import FakeInputs
from PIL import Image

from scheduler import config
from scheduler.cli.task_check import KNOWN, check
from scheduler.cli.task_request import build_message, read_message
from scheduler.config_syntax import ENGINE_KINDS, EngineLine
from scheduler.domain.errors import Rejected
from scheduler.domain.task import Task, TaskType
from scheduler.engines import sdwebui_payload
from scheduler.stores.inputs import JudgedInputs
from scheduler.submission import MAX_MESSAGE_BYTES
from scheduler.wire.recognise import recognise

MAX_PIXELS = 1 << 20
WEBUI, COMFY, JOBS = (EngineLine(kind, ("http://127.0.0.1:1",)) for kind in ENGINE_KINDS)
SERVED = {"sdwebui": WEBUI, "legacy": WEBUI}
ALL = SERVED | {"comfy": COMFY, "jobs": JOBS}
INSIDE = "http://169.254.169.254/latest/meta-data/"


def task(kind: str = "txt2img", runtime: str | None = None, **payload) -> Task:
    return Task(task_id="t", task_type=TaskType(kind), payload=payload, fingerprint="", runtime=runtime)


def build(prompt="x", *settings, image=None, checkpoint=None):
    return build_message(prompt, image=image, checkpoint=checkpoint, settings=settings, max_pixels=MAX_PIXELS)


def test_a_sound_task_is_passed_without_a_word():
    assert (
        check(
            task(prompt="x", steps=20, width=512, height=512, seed=1),
            served=SERVED,
            inputs=FakeInputs(),
            max_pixels=MAX_PIXELS,
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("stepz", "steps"), ("Sampler_Name", "sampler_name"), ("widht", "width"), ("cfgscale", "cfg_scale")],
)
def test_a_field_that_the_engine_would_pass_over_is_told_with_the_nearest(name, nearest):
    (warning,) = check(task(prompt="x", **{name: 1}), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)
    assert name in warning
    assert warning.endswith(f"did you mean {nearest}?")


def test_a_field_like_no_other_is_told_without_a_guess():
    (warning,) = check(task(**{"quux" * 100: 1}), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)
    assert "did you mean" not in warning
    assert len(warning) < 200


def test_a_field_of_another_kind_of_task_is_not_known():
    assert len(check(task(prompt="x", mask_blur=4), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)) == 1


def test_every_field_that_the_worker_checks_is_a_known_one():
    known = {field.name for fields in KNOWN.values() for field in fields}
    checked = {*sdwebui_payload._INTEGERS, *sdwebui_payload._NUMBERS, *sdwebui_payload._SIZES}
    assert checked <= known
    assert set(KNOWN) == set(TaskType) - {TaskType.PIPELINE}


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"steps": 0}, "payload.steps"),
        ({"width": "wide"}, "payload.width"),
        ({"width": 4096, "height": 4096}, "payload.width"),
        ({"cfg_scale": [7]}, "payload.cfg_scale"),
    ],
)
def test_what_a_worker_would_refuse_is_refused(payload, field):
    with pytest.raises(Rejected) as caught:
        check(task(**payload), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)
    assert caught.value.field == field


def test_what_a_worker_would_note_is_noted():
    (warning,) = check(task(width=500, height=512), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)
    assert "500" in warning


@pytest.mark.parametrize(
    ("asked", "named"), [(task("pipeline", anything=1), "pipeline"), (task(runtime="comfyui", steps=0), "'comfyui'")]
)
def test_what_nobody_here_runs_is_warned_about_and_not_judged(asked, named):
    (warning,) = check(asked, served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)
    assert named in warning
    assert "sdwebui" in warning


@pytest.mark.parametrize("runtime", ["sdwebui", "legacy"])
def test_a_served_runtime_is_checked_like_none(runtime):
    with pytest.raises(Rejected):
        check(task(runtime=runtime, steps=0), served=SERVED, inputs=FakeInputs(), max_pixels=MAX_PIXELS)


def judged(message: dict[str, object], tmp_path) -> list[str]:
    file = tmp_path / "conf.ini"
    file.write_text("[aws]\naws_region = us-east-1\nsqs_queue_url = q\ndynamodb_table = ttt\ns3_bucket = pictures\n")
    found = recognise(json.dumps({"task_id": "t", **message}))
    assert isinstance(found, Task)
    return check(found, served=ALL, inputs=JudgedInputs(config.load(file, {})), max_pixels=MAX_PIXELS)


def pipeline(class_type: str, **fields: object) -> dict[str, object]:
    return {"task_type": "pipeline", "payload": {"prompt": {"1": {"class_type": class_type, "inputs": fields}}}}


def job(image_url: str) -> dict[str, object]:
    return {"api_path": "/api/v1/camera-angle/jobs", "request_body": {"image_url": image_url, "prompt": "x"}}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"task_type": "img2img", "payload": {"init_images": [INSIDE]}}, "payload.init_images.0"),
        ({"task_type": "pipeline", "payload": {"prompt": "no graph"}}, "payload.prompt"),
        (pipeline("LoadImage", image=INSIDE), "payload.prompt.1.inputs.image"),
        (pipeline("LoadImage", image="data:image/png;base64,bm9uZQ=="), "payload.prompt.1.inputs.image"),
        (pipeline("EmptyLatentImage", width=4096, height=4096), "payload.prompt.1.inputs.width"),
        (job(INSIDE), "request_body.image_url"),
        (job("s3://of-others/a.png"), "request_body.image_url"),
        ({"task_type": "pipeline", "runtime": "legacy", "payload": {"prompt": {}}}, "runtime"),
        ({"task_type": "txt2img", "runtime": "comfy", "payload": {}}, "runtime"),
        ({"task_type": "txt2img", "runtime": "jobs", "payload": {}}, "runtime"),
    ],
)
def test_every_kind_of_task_is_judged_as_its_worker_would(tmp_path, message, field):
    with pytest.raises(Rejected) as caught:
        judged(message, tmp_path)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "message",
    [
        {"task_type": "img2img", "payload": {"init_images": ["s3://pictures/a.png"]}},
        pipeline("LoadImage", image="s3://pictures/a.png"),
        pipeline("LoadImage", image="uploaded-before.png"),
        pipeline("SomebodysOwnClass", image=INSIDE),
        job("s3://pictures/a.png"),
    ],
)
def test_what_a_worker_would_take_is_taken(tmp_path, message):
    assert judged(message, tmp_path) == []


# messages out of options


def png(side: int = 8, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(out, form)
    return out.getvalue()


def test_settings_are_json_where_they_can_be_and_text_otherwise():
    message = build("a fox", "steps=30", "sampler_name=Euler a", 'styles=["x"]', "seed=-1", checkpoint="dusk")
    assert message == {
        "task_type": "txt2img",
        "payload": {"prompt": "a fox", "steps": 30, "sampler_name": "Euler a", "styles": ["x"], "seed": -1},
        "checkpoint": "dusk",
    }


@pytest.mark.parametrize("setting", ["steps", "=3", "prompt=again"])
def test_a_setting_that_is_none_is_wrong_use(setting):
    with pytest.raises(click.UsageError, match="--set"):
        build("x", setting)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_makes_it_img2img(tmp_path, form):
    file = tmp_path / "summer"
    data = png(form=form)
    file.write_bytes(data)
    message = build("in winter", image=file)
    assert message["task_type"] == "img2img"
    assert base64.b64decode(message["payload"]["init_images"][0]) == data


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"hello", "not an image"), (png()[:60], "broken"), (png(1100), "more than max_pixels")],
    ids=["empty", "text", "cut", "huge"],
)
def test_a_file_that_is_no_picture_is_refused_by_its_name(tmp_path, data, said):
    file = tmp_path / "summer.png"
    file.write_bytes(data)
    with pytest.raises(Rejected, match=said) as caught:
        build(image=file)
    assert str(file) in caught.value.message


def test_a_picture_that_no_message_takes_is_refused_with_what_to_do(tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(png(1024))
    assert file.stat().st_size * 4 / 3 > MAX_MESSAGE_BYTES
    with pytest.raises(Rejected, match="scale it down"):
        build(image=file)


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"[" * 100_000], ids=["cut", "list", "binary", "deep"])
def test_a_file_that_is_no_message_is_wrong_use(text):
    file = io.BytesIO(text)
    file.name = "task.json"
    with pytest.raises(click.UsageError, match=r"task\.json"):
        read_message(file)


def test_a_message_is_read_as_it_is():
    file = io.BytesIO(json.dumps({"task_id": "t", "payload": {}}).encode())
    assert read_message(file) == {"task_id": "t", "payload": {}}
