"""The stand-in held to what a real ComfyUI 0.3.64 was seen to answer.

`tests/samples/comfyui/` holds its refusals: `"<any>"` stands for any value, a key `"..."` for further keys. With
COMFYUI_URL set, the same cases are asked of that server instead.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from comfy_client import SAMPLES, Comfy, flat, heard, node, sampled, started
from webui_client import like, png, until

REFUSALS = json.loads((SAMPLES / "refusals.json").read_text())
REAL_URL = os.environ.get("COMFYUI_URL", "")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    """The server under test, shared: each test leaves its queue empty."""
    if REAL_URL:
        yield Comfy(REAL_URL)
    else:
        with started() as comfy:
            yield comfy


def checkpoint(comfy: Comfy) -> str:
    return str(comfy.get("/models/checkpoints")[0])


def graph_of(asked: Any, ckpt: str) -> Any:
    """A sampled graph with one thing wrong, where a row asks for that."""
    match str(asked).strip("<>").split():
        case ["sampled", "seed", seed]:
            return sampled(seed=int(seed), ckpt=ckpt)
        case ["sampled", "ckpt", name]:
            return sampled(ckpt=name)
        case ["sampled", "sampler", name]:
            graph = sampled(ckpt=ckpt)
            graph["3"]["inputs"]["sampler_name"] = name
            return graph
        case _:
            return asked


# refusals, row by row


@pytest.mark.parametrize("case", REFUSALS, ids=[case["name"] for case in REFUSALS])
def test_refuses_as_the_real_one(comfy: Comfy, case: dict[str, Any]) -> None:
    body = case.get("json")
    if isinstance(body, dict) and str(body.get("prompt")).startswith("<"):
        body = {"prompt": graph_of(body["prompt"], checkpoint(comfy))}
    sent = {"data": case["raw"]} if "raw" in case else {"json": body}
    response = comfy.ask("POST", "/prompt", **sent)
    assert response.status_code == case["status"], response.text[:500]
    if "text" in case:
        assert response.text == case["text"]
        assert response.headers["Content-Type"].startswith("text/plain")
    else:
        assert like(case["answer"], response.json()), response.text[:1500]


def test_one_bad_output_of_two_is_taken_and_told_and_the_good_one_alone_is_run(comfy: Comfy) -> None:
    graph = flat(11) | {"3": node("SaveImage", images=["1", 0]), "4": node("PreviewImage")}
    response = comfy.post("/prompt", {"prompt": graph})
    assert response.status_code == 200
    assert set(response.json()["node_errors"]) == {"3", "4"}
    assert list(comfy.ended(response.json()["prompt_id"])["outputs"]) == ["2"]


# what is taken


def test_a_prompt_is_taken_run_and_kept_in_the_history(comfy: Comfy) -> None:
    response = comfy.post("/prompt", {"prompt": flat(255), "client_id": "c1"})
    assert like({"prompt_id": "<any>", "number": "<any>", "node_errors": {}}, response.json())
    prompt_id = response.json()["prompt_id"]
    entry = comfy.ended(prompt_id)
    assert entry["prompt"][1] == prompt_id
    assert entry["prompt"][2] == flat(255)
    assert entry["prompt"][3]["client_id"] == "c1"
    assert entry["prompt"][4] == ["2"]
    (image,) = entry["outputs"]["2"]["images"]
    assert like({"filename": "<any>", "subfolder": "", "type": "output"}, image)
    assert image["filename"].startswith("t_")
    assert entry["meta"].keys() == {"2"}
    status = entry["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)
    assert [message[0] for message in status["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert all(message[1]["timestamp"] > 1e12 for message in status["messages"]), "milliseconds"
    picture = comfy.ask("GET", "/view", params=image)
    assert (picture.status_code, picture.content[:8]) == (200, PNG)


def test_an_unknown_prompt_is_an_empty_object_and_no_404(comfy: Comfy) -> None:
    assert comfy.get("/history/never-seen") == {}


def test_the_same_graph_again_names_the_same_file(comfy: Comfy) -> None:
    first, again = comfy.ended(comfy.send(flat(77))), comfy.ended(comfy.send(flat(77)))
    assert again["outputs"] == first["outputs"]
    cached = dict(again["status"]["messages"])["execution_cached"]["nodes"]
    assert set(cached) == {"1", "2"}


def test_another_seed_is_another_file(comfy: Comfy) -> None:
    ckpt = checkpoint(comfy)
    first, again = (comfy.ended(comfy.send(sampled(seed=seed, ckpt=ckpt))) for seed in (5, 6))
    assert again["outputs"]["9"]["images"] != first["outputs"]["9"]["images"]


def test_an_id_of_ones_own_is_used_and_used_again(comfy: Comfy) -> None:
    for colour in (1, 2):
        assert comfy.send(flat(colour), prompt_id="0b0ee0a8-7b6a-4f80-9b8b-000000000001").endswith("0001")
    until(comfy.idle)
    assert comfy.ended("0b0ee0a8-7b6a-4f80-9b8b-000000000001")["prompt"][2] == flat(2)


def test_uploads_keep_their_name_only_while_it_is_theirs(comfy: Comfy) -> None:
    assert comfy.upload("contract-in.png", b"one") == {"name": "contract-in.png", "subfolder": "", "type": "input"}
    assert comfy.upload("contract-in.png", b"one")["name"] == "contract-in.png"
    assert comfy.upload("contract-in.png", b"two")["name"] == "contract-in (1).png"
    assert comfy.upload("contract-empty.png", b"")["name"] == "contract-empty.png"
    assert comfy.ask("POST", "/upload/image").status_code == 400


def test_an_upload_can_be_loaded_scaled_and_saved(comfy: Comfy) -> None:
    name = comfy.upload("contract-red.png", base64.b64decode(png()))["name"]
    graph = {
        "1": node("LoadImage", image=name),
        "2": node("ImageScale", image=["1", 0], upscale_method="area", width=32, height=48, crop="disabled"),
        "3": node("ImageInvert", image=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="t"),
    }
    (image,) = comfy.ended(comfy.send(graph))["outputs"]["4"]["images"]
    assert comfy.ask("GET", "/view", params=image).content[:8] == PNG


def test_uploaded_junk_is_found_out_only_by_the_node(comfy: Comfy) -> None:
    name = comfy.upload("contract-junk.png", b"no picture")["name"]
    graph = {"1": node("LoadImage", image=name), "2": node("SaveImage", images=["1", 0], filename_prefix="t")}
    entry = comfy.ended(comfy.send(graph))
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    kind, data = entry["status"]["messages"][-1]
    assert kind == "execution_error"
    assert (data["node_id"], data["node_type"], data["exception_type"]) == (
        "1",
        "LoadImage",
        "PIL.UnidentifiedImageError",
    )
    assert {"exception_message", "traceback", "current_inputs", "current_outputs", "executed"} <= data.keys()


@pytest.mark.parametrize(
    ("query", "status"),
    [("filename=nothere.png", 404), ("filename=../x.png", 400), ("filename=/etc/passwd", 400), ("", 400)],
)
def test_files_that_are_not_there_or_not_to_be_had(comfy: Comfy, query: str, status: int) -> None:
    response = comfy.ask("GET", f"/view?{query}")
    assert (response.status_code, response.content) == (status, b"")


# queue and interrupts: graphs that take their time


def long(seed: int, comfy: Comfy) -> dict[str, Any]:
    return sampled(seed=seed, steps=10000 if not REAL_URL else 40, ckpt=checkpoint(comfy))


def test_two_run_one_after_the_other_and_a_waiting_one_can_be_taken_out(comfy: Comfy) -> None:
    first, second, third = (comfy.send(long(seed, comfy)) for seed in (101, 102, 103))
    until(lambda: comfy.running() == [first])
    assert comfy.pending() == [second, third]
    entry = comfy.get("/queue")["queue_pending"][0]
    assert (entry[1], entry[2]["3"]["class_type"], entry[4]) == (second, "KSampler", ["9"])
    assert comfy.get("/prompt") == {"exec_info": {"queue_remaining": 3}}
    jumped = comfy.post("/prompt", {"prompt": long(104, comfy), "front": True}).json()
    assert jumped["number"] < 0
    assert comfy.pending()[0] == jumped["prompt_id"]
    for gone in ([third, jumped["prompt_id"]], [first], ["never-seen"]):
        response = comfy.post("/queue", {"delete": gone})
        assert (response.status_code, response.content) == (200, b"")
    assert (comfy.running(), comfy.pending()) == ([first], [second])
    assert comfy.get(f"/history/{third}") == {}
    comfy.post("/queue", {"clear": True})
    comfy.post("/interrupt")
    until(comfy.idle)


def test_an_interrupt_ends_what_runs_and_the_next_goes_on(comfy: Comfy) -> None:
    first = comfy.send(long(111, comfy))
    until(lambda: comfy.running() == [first])
    second = comfy.send(flat(111))
    response = comfy.post("/interrupt")
    assert (response.status_code, response.content) == (200, b"")
    entry = comfy.ended(first)
    assert (entry["status"]["status_str"], entry["status"]["completed"], entry["outputs"]) == ("error", False, {})
    kinds = [message[0] for message in entry["status"]["messages"]]
    assert kinds[-1] == "execution_interrupted"
    assert "execution_error" not in kinds
    assert comfy.ended(second)["status"]["status_str"] == "success"


def test_an_idle_interrupt_does_not_harm_the_next(comfy: Comfy) -> None:
    until(comfy.idle)
    assert comfy.post("/interrupt").status_code == 200
    assert comfy.ended(comfy.send(flat(112)))["status"]["status_str"] == "success"


def test_an_interrupt_with_a_target_hits_nobody_else(comfy: Comfy) -> None:
    first, second = comfy.send(long(121, comfy)), comfy.send(long(122, comfy))
    until(lambda: comfy.running() == [first])
    for other in (second, "never-seen"):
        assert comfy.post("/interrupt", {"prompt_id": other}).status_code == 200
    assert comfy.get(f"/history/{first}") == {}
    assert comfy.running() == [first]
    comfy.post("/interrupt", {"prompt_id": first})
    assert comfy.ended(first)["status"]["status_str"] == "error"
    until(lambda: comfy.running() == [second])
    comfy.post("/interrupt", {"prompt_id": second})
    until(comfy.idle)


# events


def without_repeats(kinds: list[str]) -> list[str]:
    return [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]


def test_events_come_in_the_captured_order(comfy: Comfy) -> None:
    with comfy.events("ws-mine") as mine, comfy.events("ws-other") as other:
        first = json.loads(mine.recv())
        assert first["data"]["sid"] == "ws-mine"
        assert set(first["data"]["status"]["exec_info"]) == {"queue_remaining"}
        prompt_id = comfy.send(sampled(seed=131, ckpt=checkpoint(comfy)), client_id="ws-mine")
        events = heard(mine, prompt_id)
        kinds = [event["type"] for event in events if event["type"] != "progress_state"]
        assert without_repeats([kind for kind in kinds if kind != "status"]) == [
            *("execution_start", "execution_cached", "executing", "progress", "executing", "executed"),
            *("execution_success", "executing"),
        ]
        assert [event["data"]["node"] for event in events if event["type"] == "executing"][-3:] == ["8", "9", None]
        steps = [event["data"] for event in events if event["type"] == "progress"]
        assert [(step["value"], step["max"], step["node"]) for step in steps] == [(n, 3, "3") for n in (1, 2, 3)]
        assert kinds[-2] == "status", "the queue is told empty before the mark of the end"
        (executed,) = [event["data"] for event in events if event["type"] == "executed"]
        assert executed["output"] == comfy.ended(prompt_id)["outputs"]["9"]
        theirs = comfy.send(flat(131), client_id="ws-other")
        assert {event["data"].get("prompt_id", theirs) for event in heard(other, theirs)} == {theirs}


def test_an_interrupted_prompt_ends_with_the_same_mark_and_nobody_else_hears_of_it(comfy: Comfy) -> None:
    with comfy.events("ws-cut") as socket, comfy.events("ws-next") as other:
        prompt_id = comfy.send(long(141, comfy), client_id="ws-cut")
        until(lambda: comfy.running() == [prompt_id])
        comfy.post("/interrupt")
        kinds = [event["type"] for event in heard(socket, prompt_id)]
        theirs = comfy.send(flat(141), client_id="ws-next")
        assert {event["data"].get("prompt_id", theirs) for event in heard(other, theirs)} == {theirs}
    assert "execution_interrupted" in kinds
    assert not {"execution_success", "execution_error"} & set(kinds)


# the rest


def test_the_lists_that_are_asked_for(comfy: Comfy) -> None:
    stats = comfy.get("/system_stats")
    assert {"comfyui_version", "argv"} <= stats["system"].keys()
    assert {"name", "type", "vram_total", "vram_free"} <= stats["devices"][0].keys()
    info = comfy.get("/object_info/LoadImage")["LoadImage"]
    assert info["input"]["required"]["image"][1]["image_upload"] is True
    assert {"input", "output", "output_node", "name", "category"} <= info.keys()
    assert comfy.get("/object_info/NoSuchNode") == {}
    assert comfy.get("/models/checkpoints")


def test_every_route_is_there_with_the_prefix_too(comfy: Comfy) -> None:
    assert comfy.get("/api/queue") == comfy.get("/queue")
    prompt_id = comfy.ask("POST", "/api/prompt", json={"prompt": flat(151)}).json()["prompt_id"]
    comfy.ended(prompt_id)
    assert comfy.get(f"/api/history/{prompt_id}") == comfy.get(f"/history/{prompt_id}")


def test_a_webuis_route_is_405_in_plain_text_and_a_job_api_is_not_there(comfy: Comfy) -> None:
    response = comfy.post("/sdapi/v1/txt2img", {})
    assert response.status_code == 405
    assert response.headers["Content-Type"].startswith("text/plain")
    assert comfy.ask("GET", "/api/jobs").status_code == 404


def test_what_is_cached_is_dropped_on_demand(comfy: Comfy) -> None:
    first = comfy.ended(comfy.send(flat(161)))
    assert comfy.post("/free", {"unload_models": True, "free_memory": True}).status_code == 200

    def is_new() -> bool:
        return bool(comfy.ended(comfy.send(flat(161)))["outputs"] != first["outputs"])

    until(is_new)


def test_history_can_be_forgotten(comfy: Comfy) -> None:
    prompt_id = comfy.send(flat(171))
    comfy.ended(prompt_id)
    comfy.post("/history", {"delete": [prompt_id]})
    assert comfy.get(f"/history/{prompt_id}") == {}
