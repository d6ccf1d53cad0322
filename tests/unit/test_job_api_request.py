"""Which requests may go to the job API, and how they are sent."""

import json

import pytest
from job_api import CAMERA, EDIT, task_of

from scheduler.domain.errors import Rejected
from scheduler.engines.job_api_request import addresses, checked_path, encode
from scheduler.wire.job_api import PATHS


@pytest.mark.parametrize("path", [CAMERA, EDIT])
def test_the_two_paths_are_taken(path):
    assert checked_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        None,
        "",
        "/",
        "/health",
        "/api/v1/jobs/x",
        CAMERA + "/",
        CAMERA + "?x=1",
        CAMERA + "#x",
        " " + CAMERA,
        CAMERA + "\n",
        CAMERA.upper(),
        "/" + CAMERA,
        "http://127.0.0.1:8000" + CAMERA,
        "//evil.example" + CAMERA,
        "@evil.example" + CAMERA,
        ".evil.example" + CAMERA,
        "/api/v1/other/../camera-angle/jobs",
        "/api/v1/camera-angle/jobs/../../../../health",
        "/api/v1/camera%2Dangle/jobs",
        "/api/v1/camera-angle/jobs%00",
        "/api/v1/camera-angle%2fjobs",
        "\\api\\v1\\camera-angle\\jobs",
        "/api/v1/camera\u2010angle/jobs",
    ],
)
def test_any_other_path_is_refused_however_it_is_spelt(path):
    with pytest.raises(Rejected) as caught:
        checked_path(path)
    assert caught.value.field == "api_path"
    assert all(known in caught.value.message for known in PATHS)


def test_the_pictures_that_the_api_would_fetch_are_found():
    body = {
        "image_url": "s3://b/1.png",
        "image2_url": "https://example.com/2.png",
        "image3_url": None,
        "prompt": "http://not.an.image",
    }
    assert addresses(body) == {
        "request_body.image_url": "s3://b/1.png",
        "request_body.image2_url": "https://example.com/2.png",
    }


@pytest.mark.parametrize(
    "value",
    ["http://169.254.169.254/latest", "file:///etc/passwd", "gopher://x", "//x/y", "", "in.png", 7, ["s3://b/k"], {}],
)
def test_an_address_of_another_scheme_is_refused(value):
    with pytest.raises(Rejected) as caught:
        addresses({"image_url": "s3://b/k", "image2_url": value})
    assert caught.value.field == "request_body.image2_url"


def test_the_request_goes_as_it_came():
    body = {"prompt": "ein Bär 🐻", "seed": 0, "steps": 8, "cfg": 1.5, "unknown": [1, {"a": None}]}
    assert json.loads(encode(task_of(body), seed_key="t:1")) == body
    assert json.loads(encode(task_of({"prompt": "x"}), seed_key="t:1")) == {"prompt": "x"}


def test_a_random_seed_is_fixed_by_the_run():
    def seed(key):
        return json.loads(encode(task_of({"seed": -1}), seed_key=key))["seed"]

    assert seed("t:1") == seed("t:1") >= 0
    assert seed("t:1") != seed("t:2")
