"""What becomes of the files that a prompt names, whatever they are and however they are called."""

from __future__ import annotations

import io
from typing import Any

import pytest
from comfy_client import flat
from PIL import Image

from scheduler.domain.errors import BadResult, Rejected
from scheduler.domain.task import Task, TaskType
from scheduler.engines.comfyui_answer import ComfyAnswer
from scheduler.engines.comfyui_run import ComfyRun

RUN = ComfyRun(
    task=Task(task_id="t", task_type=TaskType.PIPELINE, payload=flat(), fingerprint=""),
    path="/prompt",
    body=b"",
    image_count=None,
    checkpoint=None,
    sampler=None,
    estimate_bytes=0,
    graph=flat(),
    at="payload",
    uploads=(),
    include_temp=False,
    beside={},
)


def picture(colour: str = "red") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


class Files:
    """The engine's output folder."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.asked: list[str] = []

    def view(self, entry: dict[str, str], _most_bytes: int) -> bytes:
        self.asked.append(entry["filename"])
        return self.files[entry["filename"]]


def answer(client: Any, *names: str) -> ComfyAnswer:
    listed = [{"filename": name, "subfolder": "", "type": "output"} for name in names]
    entry = {"outputs": {"2": {"images": listed}}, "status": {"status_str": "success"}}
    return ComfyAnswer(client, RUN, entry, max_pixels=1 << 20, doubt=lambda: None)


def test_a_file_that_the_next_prompt_may_overwrite_is_fetched_before_there_is_one():
    folder = Files(**{"latest.png": picture("red"), "ComfyUI_00001_.png": picture("green")})
    made = answer(folder, "latest.png", "ComfyUI_00001_.png")
    made.secure()
    assert folder.asked == ["latest.png"], "a name with a number is no other's"
    folder.files["latest.png"] = picture("blue")
    assert [image.data for image in made.output().images] == [picture("red"), picture("green")]


@pytest.mark.parametrize("name", ["drawing_00001_.svg", "light_00001_.exr", "shape_00001_.glb"])
def test_a_kind_that_is_not_stored_is_refused_at_once_and_not_rendered_again(name):
    with pytest.raises(Rejected, match="no picture, video or sound"):
        answer(Files(**{name: b"<svg/>"}), name).output()


def test_a_picture_that_is_none_is_a_failed_run():
    with pytest.raises(BadResult):
        answer(Files(**{"a_00001_.png": b"nonsense"}), "a_00001_.png").output()
