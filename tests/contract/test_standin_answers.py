"""The stand-in held to what a real A1111 v1.10.1 was seen to answer.

`tests/samples/a1111/` holds those answers: `"<any>"` stands for any value, a key `"..."` for further keys. With
SD_WEBUI_URL set, the same cases are asked of that server instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webui_client import LONG, SAMPLES, SMALL, Webui, info_of, like, picture, png, started, until

REFUSALS = json.loads((SAMPLES / "refusals.json").read_text())
ANSWERS = json.loads((SAMPLES / "answers.json").read_text())
REAL_URL = os.environ.get("SD_WEBUI_URL", "")


@pytest.fixture(scope="module")
def webui() -> Iterator[Webui]:
    """The server under test, shared: each test leaves its options as they were."""
    if REAL_URL:
        yield Webui(REAL_URL)
    else:
        with started() as webui:
            yield webui


def filled(value: Any) -> Any:
    if value == "<png>":
        return png()
    if isinstance(value, dict):
        return {key: filled(entry) for key, entry in value.items()}
    return [filled(entry) for entry in value] if isinstance(value, list) else value


# refusals, row by row


@pytest.mark.parametrize("case", REFUSALS, ids=[case["name"] for case in REFUSALS])
def test_refuses_as_the_real_one(webui: Webui, case: dict[str, Any]) -> None:
    more: dict[str, Any] = {}
    if "raw" in case:
        more = {"data": case["raw"], "headers": {"Content-Type": case["content_type"]}}
    elif "json" in case:
        more = {"json": filled(case["json"])}
    response = webui.ask(case["method"], case["path"], **more)
    assert response.status_code == case["status"], response.text[:500]
    assert like(case["answer"], response.json()), response.text[:500]


def test_a_refused_request_leaves_the_server_idle_and_well(webui: Webui) -> None:
    assert webui.ask("POST", "txt2img", json=SMALL | {"steps": 0}).status_code == 500
    assert like(ANSWERS["progress_idle"], webui.get("progress"))
    assert len(webui.post("txt2img", **SMALL)["images"]) == 1


# silent successes


@pytest.mark.parametrize("name", ["sampler_name", "sampler_index"])
def test_an_unknown_sampler_is_silently_replaced(webui: Webui, name: str) -> None:
    body = {key: value for key, value in SMALL.items() if key != "sampler_name"}
    answer = webui.post("txt2img", **body | {name: "NoSuch"})
    assert info_of(answer)["sampler_name"] == "DPM++ 2M"
    assert answer["parameters"][name] == "NoSuch"
    assert "Schedule type: Karras" in info_of(answer)["infotexts"][0]


def test_an_unknown_scheduler_is_silently_passed_over(webui: Webui) -> None:
    assert info_of(webui.post("txt2img", **SMALL | {"scheduler": "NoSuch"}))["sampler_name"] == "Euler"


def test_an_old_combined_sampler_name_is_accepted(webui: Webui) -> None:
    answer = webui.post("txt2img", **SMALL | {"sampler_name": "DPM++ 2M Karras"})
    assert info_of(answer)["sampler_name"] == "DPM++ 2M"


def test_an_unknown_override_checkpoint_silently_renders_with_the_current_one(webui: Webui) -> None:
    usual = info_of(webui.post("txt2img", **SMALL))
    answer = info_of(webui.post("txt2img", **SMALL | {"override_settings": {"sd_model_checkpoint": "nope"}}))
    assert [answer[key] for key in ("sd_model_name", "sd_model_hash")] == [
        usual[key] for key in ("sd_model_name", "sd_model_hash")
    ]


def test_an_unknown_field_is_ignored(webui: Webui) -> None:
    assert "zzz_no" not in webui.post("txt2img", **SMALL | {"zzz_no": 1})["parameters"]


def test_a_width_is_cut_to_blocks_of_eight(webui: Webui) -> None:
    answer = webui.post("txt2img", **SMALL | {"width": 65})
    assert picture(answer["images"][0]).size == (64, 64)
    assert answer["parameters"]["width"] == 65


# pictures


def test_txt2img_answers_in_the_captured_shape(webui: Webui) -> None:
    answer = webui.post("txt2img", **SMALL)
    assert like(ANSWERS["txt2img"], answer)
    assert len(answer["parameters"]) == 55
    assert isinstance(answer["info"], str)
    assert like(ANSWERS["info"], info_of(answer))
    made = picture(answer["images"][0])
    assert made.format == "PNG"
    assert made.size == (64, 64)
    assert made.text["parameters"] == info_of(answer)["infotexts"][0]  # type: ignore[attr-defined]  # PNG only


def test_batches_give_all_images_with_consecutive_seeds(webui: Webui) -> None:
    answer = webui.post("txt2img", **SMALL | {"batch_size": 2, "n_iter": 2})
    assert len(answer["images"]) == 4
    assert info_of(answer)["all_seeds"] == [1, 2, 3, 4]
    assert len(set(answer["images"])) == 4


def test_a_random_seed_is_told(webui: Webui) -> None:
    infos = [info_of(webui.post("txt2img", **SMALL | {"seed": -1})) for _ in range(2)]
    assert all(info["seed"] == info["all_seeds"][0] >= 0 for info in infos)
    assert infos[0]["seed"] != infos[1]["seed"]


def test_images_are_left_out_when_not_wanted(webui: Webui) -> None:
    answer = webui.post("txt2img", **SMALL | {"send_images": False})
    assert answer["images"] == []
    assert info_of(answer)["all_seeds"] == [1]


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_img2img_takes_bare_base64_and_data_uris(webui: Webui, prefix: str) -> None:
    answer = webui.post("img2img", **SMALL | {"init_images": [prefix + png()], "steps": 2})
    assert picture(answer["images"][0]).size == (64, 64)
    assert answer["parameters"]["init_images"] is None


def test_extras_enlarge_a_picture(webui: Webui) -> None:
    answer = webui.post("extra-single-image", image=png(), upscaling_resize=2, upscaler_1="Lanczos")
    assert answer.keys() == {"html_info", "image"}
    assert picture(answer["image"]).size == (128, 128)


def test_extras_enlarge_several_pictures(webui: Webui) -> None:
    files = [{"data": png(), "name": "a.png"}, {"data": png((0, 0, 200)), "name": "b.png"}]
    body = {"imageList": files, "resize_mode": 1, "upscaling_resize_w": 96, "upscaling_resize_h": 80}
    answer = webui.post("extra-batch-images", **body, upscaler_1="Lanczos")
    assert answer.keys() == {"html_info", "images"}
    assert [picture(image).size for image in answer["images"]] == [(96, 80)] * 2


# control and state


def test_progress_is_idle_when_nothing_runs(webui: Webui) -> None:
    webui.post("txt2img", **SMALL)
    assert like(ANSWERS["progress_idle"], webui.get("progress"))


def test_progress_answers_at_once_while_a_job_runs(webui: Webui) -> None:
    running = webui.later("txt2img", **LONG)
    seen: list[Any] = []
    until(lambda: seen.append(webui.get("progress")) or seen[-1]["state"]["sampling_step"] > 0)
    assert like(ANSWERS["progress_running"], seen[-1])
    assert 0.01 < seen[-1]["progress"] < 1
    assert seen[-1]["state"]["sampling_steps"] == LONG["steps"]
    assert running.result().status_code == 200


def test_an_interrupt_leaves_a_half_done_image_that_nothing_marks(webui: Webui) -> None:
    whole = webui.post("txt2img", **LONG)
    running = webui.later("txt2img", **LONG)
    until(webui.sampling)
    assert webui.post("interrupt") == {}
    response = running.result()
    assert response.status_code == 200
    assert len(response.json()["images"]) == 1
    assert response.json()["images"] != whole["images"]
    assert info_of(response.json())["steps"] == LONG["steps"]
    assert webui.get("progress")["state"]["interrupted"] is True, "until the next job"
    assert webui.post("txt2img", **LONG)["images"] == whole["images"], "the next job is whole"
    assert webui.get("progress")["state"]["interrupted"] is False


def test_an_interrupt_between_batches_leaves_fewer_images_than_seeds(webui: Webui) -> None:
    running = webui.later("txt2img", **LONG | {"n_iter": 3})
    seen: list[Any] = []
    until(lambda: seen.append(webui.get("progress")["state"]) or seen[-1]["job"] == "Batch 2 out of 3")
    webui.post("interrupt")
    assert seen[-1]["job_count"] == 3
    answer = running.result().json()
    assert len(answer["images"]) == 2
    assert len(info_of(answer)["infotexts"]) == 2
    assert info_of(answer)["all_seeds"] == [1, 2, 3]


def test_an_interrupt_hits_only_the_running_job(webui: Webui) -> None:
    whole = webui.post("txt2img", **SMALL | {"steps": 5})["images"]
    running = webui.later("txt2img", **LONG)
    until(webui.sampling)
    waiting = webui.later("txt2img", **SMALL | {"steps": 5})
    webui.post("interrupt")
    assert running.result().status_code == 200
    assert waiting.result().json()["images"] == whole


def test_an_idle_interrupt_does_not_harm_the_next_job(webui: Webui) -> None:
    whole = webui.post("txt2img", **LONG | {"steps": 5})["images"]
    assert webui.post("interrupt") == {}
    assert webui.post("txt2img", **LONG | {"steps": 5})["images"] == whole


def test_a_skipped_job_still_returns_its_images(webui: Webui) -> None:
    running = webui.later("txt2img", **LONG | {"batch_size": 2})
    until(webui.sampling)
    assert webui.post("skip") is None
    assert len(running.result().json()["images"]) == 2


def test_models_are_listed_in_the_captured_shape(webui: Webui) -> None:
    webui.post("txt2img", **SMALL)
    models = webui.get("sd-models")
    loaded = next(model for model in models if model["hash"])
    assert like(ANSWERS["sd_model"], loaded)
    assert loaded["title"] == f"{Path(loaded['filename']).name} [{loaded['hash']}]"
    assert loaded["sha256"].startswith(loaded["hash"])
    assert all((model["hash"] is None) == (" [" not in model["title"]) for model in models)


def test_options_can_be_set_and_read(webui: Webui) -> None:
    before = webui.get("options")
    assert {"sd_model_checkpoint", "samples_format", "CLIP_stop_at_last_layers"} <= before.keys()
    try:
        assert webui.post("options", CLIP_stop_at_last_layers=2) is None
        assert webui.get("options")["CLIP_stop_at_last_layers"] == 2
        assert info_of(webui.post("txt2img", **SMALL))["clip_skip"] == 2
    finally:
        webui.post("options", CLIP_stop_at_last_layers=before["CLIP_stop_at_last_layers"])


@pytest.mark.parametrize(("path", "answer"), [("unload-checkpoint", {}), ("reload-checkpoint", {})])
def test_weights_can_be_dropped_and_come_back_by_themselves(webui: Webui, path: str, answer: Any) -> None:
    assert webui.post(path) == answer
    assert len(webui.post("txt2img", **SMALL)["images"]) == 1


def test_checkpoints_can_be_refreshed(webui: Webui) -> None:
    assert webui.post("refresh-checkpoints") is None


def test_memory_is_told(webui: Webui) -> None:
    assert like(ANSWERS["memory"], webui.get("memory"))


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("samplers", {"name", "aliases", "options"}),
        ("schedulers", {"name", "label", "aliases", "default_rho", "need_inner_model"}),
        ("upscalers", {"name", "model_name", "model_path", "model_url", "scale"}),
    ],
)
def test_lists_have_the_captured_entries(webui: Webui, path: str, keys: set[str]) -> None:
    entries = webui.get(path)
    assert entries
    assert all(entry.keys() == keys for entry in entries)


def test_two_requests_run_one_after_the_other(webui: Webui) -> None:
    first = webui.later("txt2img", **LONG)
    until(webui.sampling)
    second = webui.later("txt2img", **SMALL | {"seed": 2})
    done, at = [], {first: "first", second: "second"}
    for future, name in at.items():
        future.add_done_callback(lambda _, name=name: done.append(name))
    assert (first.result().status_code, second.result().status_code) == (200, 200)
    until(lambda: len(done) == 2)
    assert done == ["first", "second"]
