"""The stand-in's checkpoints, manners on the wire, start, end and faults, where the real server was seen to do the
same.

All of it starts, kills or orders about a process of its own, so that none of it can be asked of a real server.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests
from webui_client import DEADLINE_S, LONG, SAMPLES, SMALL, Webui, info_of, like, picture, started, until

ANSWERS = json.loads((SAMPLES / "answers.json").read_text())

if os.environ.get("SD_WEBUI_URL"):
    pytest.skip("starts, orders into faults or kills its own stand-in", allow_module_level=True)


@pytest.fixture
def own() -> Iterator[Webui]:
    """A stand-in of the test's own; a step takes long enough to be caught in."""
    with started(seconds_per_step=0.05) as webui:
        yield webui


# checkpoints: a server with two


def test_an_override_switches_for_one_request_and_the_weights_stay(own: Webui) -> None:
    dawn, dusk = own.get("sd-models")
    assert dusk["title"] == "standin-dusk.safetensors"
    assert dusk["hash"] is dusk["sha256"] is None
    other = SMALL | {"override_settings": {"sd_model_checkpoint": dusk["title"]}}
    assert info_of(own.post("txt2img", **other))["sd_model_name"] == "standin-dusk"
    assert own.get("options")["sd_model_checkpoint"] == dawn["title"], "the option is restored"
    renamed = own.get("sd-models")[1]
    assert renamed["title"] == f"standin-dusk.safetensors [{renamed['hash']}]"
    own.post("txt2img", **other)
    assert len(own.stats()["switches"]) == 1, "the weights stayed, under the old title too"
    assert info_of(own.post("txt2img", **SMALL))["sd_model_name"] == "standin-dawn"
    assert [switch["to"] for switch in own.stats()["switches"]] == [
        "standin-dusk.safetensors",
        "standin-dawn.safetensors",
    ]


def test_options_switch_for_good(own: Webui) -> None:
    assert own.post("options", sd_model_checkpoint="standin-dusk") is None
    assert own.get("options")["sd_model_checkpoint"] == own.get("sd-models")[1]["title"]
    assert info_of(own.post("txt2img", **SMALL))["sd_model_name"] == "standin-dusk"


def test_a_broken_checkpoint_spoils_what_comes_after_it(own: Webui) -> None:
    own.standin.fault("corrupt-checkpoint", match="dusk")
    response = own.ask("POST", "txt2img", json=SMALL | {"override_settings": {"sd_model_checkpoint": "standin-dusk"}})
    assert response.status_code == 500
    words = "Error while deserializing header: InvalidHeaderDeserialization"
    assert response.json() == {"error": "SafetensorError", "detail": "", "body": "", "errors": words}
    assert [own.ask("POST", "txt2img", json=SMALL).status_code for _ in range(2)] == [500, 500]
    own.standin.heal()
    assert len(own.post("txt2img", **SMALL)["images"]) == 1


def test_a_new_checkpoint_is_seen_after_a_refresh(own: Webui) -> None:
    own.standin.drop_checkpoint("noon.safetensors")
    assert len(own.get("sd-models")) == 2
    own.post("refresh-checkpoints")
    assert own.get("sd-models")[2]["title"] == "noon.safetensors"


# who may ask, and when


def test_a_password_is_asked_for() -> None:
    with started(auth="ann:secret,bob:pass:word") as webui:
        missing = webui.ask("GET", "options")
        wrong = webui.ask("GET", "options", auth=("ann", "guess"))
        assert [missing.status_code, wrong.status_code] == [401, 401]
        shape = {"error": "HTTPException", "body": "", "errors": ""}
        assert missing.json() == shape | {"detail": "Not authenticated"}
        assert wrong.json() == shape | {"detail": "Incorrect username or password"}
        assert "WWW-Authenticate" not in wrong.headers
        assert webui.ask("GET", "options", auth=("bob", "pass:word")).status_code == 200


def test_the_api_only_server_has_no_page(own: Webui) -> None:
    for path in ("/", "/internal/ping"):
        response = own.ask("GET", path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    assert own.ask("POST", "/internal/progress", json={"id_task": "x"}).status_code == 404


def test_with_its_page_a_request_can_be_followed_by_its_id() -> None:
    with started(ui=True, seconds_per_step=0.05) as webui:
        follow = {"id_task": "task(qq)", "live_preview": False}
        assert webui.get("/internal/ping") == {}
        first = webui.later("txt2img", **LONG)
        until(webui.sampling)
        second = webui.later("txt2img", **LONG | {"force_task_id": "task(qq)"})
        until(lambda: webui.get("/internal/pending-tasks")["size"] == 1)
        assert like(ANSWERS["pending_tasks"], webui.get("/internal/pending-tasks"))
        assert like(ANSWERS["task_queued"], webui.post("/internal/progress", **follow))
        webui.post("interrupt")
        first.result()
        until(lambda: bool(webui.post("/internal/progress", **follow)["progress"]))
        assert webui.post("/internal/progress", **follow)["active"] is True
        second.result()
        assert webui.post("/internal/progress", **follow)["completed"] is True
        assert like(ANSWERS["task_unknown"], webui.post("/internal/progress", id_task="task(other)"))


def test_the_page_comes_up_before_the_api() -> None:
    with started(ui=True, startup_seconds=1.0) as webui:
        seen: list[tuple[int, int]] = []
        while (200, 200) not in seen:
            now = (webui.ask("GET", "/internal/ping").status_code, webui.ask("GET", "options").status_code)
            seen += [now] if now not in seen else []
        assert seen[-1] == (200, 200)
        assert (200, 404) in seen


# connections


def test_a_client_that_leaves_does_not_stop_its_render(own: Webui) -> None:
    address = urlsplit(own.base_url)
    body = json.dumps(LONG).encode()
    with socket.create_connection((address.hostname, address.port)) as client:
        head = f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        until(own.sampling)
    until(lambda: own.stats()["running"] == "")
    assert own.stats()["renders_whole"] == {"a cat": 1}


@pytest.mark.parametrize("way", ["crash", "kill"])
def test_when_it_dies_all_who_wait_see_their_connection_closed_without_a_byte(own: Webui, way: str) -> None:
    if way == "crash":
        own.standin.fault("crash", after_steps=20)
    waiting = [own.later("txt2img", **LONG) for _ in range(2)]
    until(lambda: own.stats()["waiting"] == 1 and own.sampling())
    if way == "kill":
        own.standin.kill()
    for future in waiting:
        with pytest.raises(requests.ConnectionError, match="RemoteDisconnected"):
            future.result()
    own.standin.wait(DEADLINE_S)
    with pytest.raises(requests.ConnectionError, match="refused"):
        own.ask("GET", "progress")


def test_sigterm_refuses_the_new_and_finishes_what_it_has(own: Webui) -> None:
    in_hand = [own.later("txt2img", **LONG | {"steps": 50}) for _ in range(2)]
    until(lambda: own.stats()["waiting"] == 1 and own.sampling())
    stopped = own.pool.submit(own.standin.stop, DEADLINE_S)
    until(own.refuses)
    assert not in_hand[1].done()
    assert [future.result().status_code for future in in_hand] == [200, 200]
    assert stopped.result() == 0


def test_it_does_not_outlive_a_parent_that_is_killed() -> None:
    script = (
        "import os, signal; from scheduler.local.standin.process import StandinProcess\n"
        "print(StandinProcess().start(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=DEADLINE_S, check=False, text=True
    )
    assert parent.returncode == -9
    until(Webui(parent.stdout.strip()).refuses)


# faults on demand


def test_out_of_memory_strikes_as_often_as_ordered(own: Webui) -> None:
    own.standin.fault("oom", count=2)
    failed = [own.ask("POST", "txt2img", json=SMALL) for _ in range(2)]
    assert [response.status_code for response in failed] == [500, 500]
    assert like({"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "<any>"}, failed[0].json())
    assert failed[0].json()["errors"].startswith("CUDA out of memory.")
    assert own.ask("POST", "txt2img", json=SMALL).status_code == 200
    assert own.stats()["faults"] == []


def test_out_of_memory_can_depend_on_the_batch(own: Webui) -> None:
    own.standin.fault("oom", max_batch=1)
    statuses = [own.ask("POST", "txt2img", json=SMALL | {"batch_size": size}).status_code for size in (2, 1, 3)]
    assert statuses == [500, 200, 500]


def test_a_hang_ignores_interrupts_until_it_is_released(own: Webui) -> None:
    own.standin.fault("hang", match="cat")
    stuck = own.later("txt2img", **LONG)
    until(own.sampling)
    own.post("interrupt")
    step = own.get("progress")["state"]["sampling_step"]
    waiting = own.later("txt2img", **SMALL)
    until(lambda: own.stats()["waiting"] == 1)
    assert own.get("progress")["state"]["sampling_step"] == step
    assert not stuck.done()
    own.standin.heal()
    assert [stuck.result().status_code, waiting.result().status_code] == [200, 200]


def test_pictures_can_be_spoilt(own: Webui) -> None:
    pair = SMALL | {"batch_size": 2}
    own.standin.fault("black")
    black = own.post("txt2img", **pair)
    assert [picture(image).getextrema() for image in black["images"]] == [((0, 0),) * 3] * 2
    own.standin.fault("short")
    short = own.post("txt2img", **pair)
    assert len(short["images"]) == 1
    assert info_of(short)["all_seeds"] == [1, 2]
    own.standin.fault("corrupt-image")
    corrupt = own.post("txt2img", **pair)
    with pytest.raises(OSError, match="truncated"):
        picture(corrupt["images"][0])
    own.standin.fault("wrong-model")
    assert info_of(own.post("txt2img", **pair))["sd_model_name"] == "standin-dusk"
    assert info_of(own.post("txt2img", **pair))["sd_model_name"] == "standin-dawn"


def test_an_order_that_makes_no_sense_is_refused(own: Webui) -> None:
    for order in ({"kind": "earthquake"}, {"kind": "oom", "colour": "red"}, {}):
        assert own.ask("POST", "/standin/faults", json=order).status_code == 400


def test_busy_times_are_told_and_never_overlap(own: Webui) -> None:
    others = [own.later("txt2img", **SMALL | {"seed": seed}) for seed in range(4)]
    others.append(own.later("txt2img", **SMALL | {"override_settings": {"sd_model_checkpoint": "standin-dusk"}}))
    for future in others:
        future.result()
    busy = own.stats()["busy"]
    assert sorted(entry[2] for entry in busy if entry[2] == "render") == ["render"] * 5
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(busy))
    assert own.stats()["renders"] == {"a cat": 5}
