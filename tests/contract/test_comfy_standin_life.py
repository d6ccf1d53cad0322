"""How ComfyUI's stand-in starts, ends and goes wrong, where the real server was seen to do the same.

All of it starts, kills or orders about a process of its own, so that none of it can be asked of a real server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import requests
import websocket
from comfy_client import Comfy, flat, heard, sampled, started
from webui_client import until

from scheduler.local.comfy.process import ComfyOptions, ComfyProcess

if os.environ.get("COMFYUI_URL"):
    pytest.skip("starts, orders into faults or kills its own stand-in", allow_module_level=True)

LONG = sampled(steps=10000)


@pytest.fixture
def own() -> Iterator[Comfy]:
    with started() as comfy:
        yield comfy


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_takes_queue_and_history_with_it_and_drains_nothing(own: Comfy, number: int) -> None:
    before = own.send(flat(1))
    own.ended(before)
    with own.events("mine") as socket:
        lost = own.send(LONG, client_id="mine")
        until(lambda: own.running() == [lost])
        assert own.standin.pid is not None
        os.kill(own.standin.pid, number)
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            heard(socket, lost)
    own.standin.wait(10)
    with pytest.raises(requests.ConnectionError):
        own.get("/queue")
    own.standin.kill()
    own.standin.start(port=own.standin.port)
    assert own.get("/queue") == {"queue_running": [], "queue_pending": []}
    assert own.get("/history") == {}
    assert own.get(f"/history/{lost}") == {}
    assert own.post("/prompt", {"prompt": flat(2)}).json()["number"] == 0


def test_the_port_refuses_until_it_has_started() -> None:
    with ComfyProcess(ComfyOptions(startup_seconds=0.5)) as standin:
        comfy = Comfy(standin.base_url, standin)
        with pytest.raises(requests.ConnectionError):
            comfy.get("/queue")

        def is_up() -> bool:
            try:
                return bool(comfy.get("/system_stats"))
            except requests.ConnectionError:
                return False

        until(is_up)


def test_an_old_build_interrupts_whatever_runs() -> None:
    with started(targeted_interrupt=False) as comfy:
        prompt_id = comfy.send(LONG)
        until(lambda: comfy.running() == [prompt_id])
        comfy.post("/interrupt", {"prompt_id": "another"})
        assert comfy.ended(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


def test_another_clients_socket_hears_of_the_queue_only(own: Comfy) -> None:
    with own.events("mine") as socket:
        own.ended(own.send(flat(3), client_id="other"))
        mine = own.send(flat(4), client_id="mine")
        assert {event["data"].get("prompt_id", mine) for event in heard(socket, mine)} == {mine}


@pytest.mark.parametrize("previews", [False, True])
def test_previews_are_sent_only_when_a_method_is_set(previews: bool) -> None:
    with started(previews=previews) as comfy, comfy.events("mine") as socket:
        prompt_id = comfy.send(sampled(), client_id="mine")
        frames = [socket.recv()]
        while "execution_success" not in str(frames[-1]):
            frames.append(socket.recv())
        assert comfy.ended(prompt_id)
    shown = [frame for frame in frames if isinstance(frame, bytes)]
    assert len(shown) == (3 if previews else 0)
    assert all(frame[:8] == b"\0\0\0\1\0\0\0\1" and frame[8:11] == b"\xff\xd8\xff" for frame in shown)


def test_a_socket_pings_and_closes_as_the_protocol_says(own: Comfy) -> None:
    with own.events("mine") as socket:
        socket.recv()
        socket.ping(b"are you there")
        opcode, data = socket.recv_data(control_frame=True)
        assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b"are you there")
        socket.send("x" * 70000)  # a client's words are heard and mean nothing
        socket.ping(b"still")
        assert socket.recv_data(control_frame=True)[1] == b"still"
        socket.send_close()
        assert socket.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE


def test_an_order_that_makes_no_sense_is_refused(own: Comfy) -> None:
    for order in ({"kind": "earthquake"}, {"kind": "oom", "colour": "red"}, {}):
        assert own.post("/standin/faults", order).status_code == 400
