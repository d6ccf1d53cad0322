"""The ComfyUI client over stubbed HTTP, and the wait for an end over a scripted engine;
connections are in the integration tests.
"""

import json

import pytest
import responses
from comfy_client import sampled
from fakes import FakeClock

from scheduler.domain.errors import EngineBusy, EngineDown, EngineLost, Interrupted
from scheduler.engine_http import NobodyListens, NoSuchRoute
from scheduler.engines.comfyui_client import ComfyClient, Queue
from scheduler.engines.comfyui_events import Track
from scheduler.engines.comfyui_watch import DEAF_S, Overdue, Watch

URL = "http://127.0.0.1:8188"


@pytest.fixture
def http():
    with responses.RequestsMock() as mock:
        yield mock


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([[0, "a", {}, {"client_id": "me"}, ["9"]]], {"a": "me"}),
        ([[0, "a", {}, {}, ["9"]], [1, "b"]], {"a": None, "b": None}),
        ([[], "x", [1], None, [1, 2, 3]], {}),
        ("x", {}),
        (None, {}),
    ],
)
def test_the_queue_is_read_whatever_is_in_it(http, running, expected):
    http.get(f"{URL}/queue", json={"queue_running": running, "queue_pending": running})
    assert ComfyClient(URL).queue() == Queue(expected, expected)


@pytest.mark.parametrize("answer", [[], "x", 3, None])
def test_another_server_is_no_engine(http, answer):
    http.get(f"{URL}/queue", json=answer)
    http.get(f"{URL}/system_stats", json=answer)
    client = ComfyClient(URL)
    with pytest.raises(EngineDown, match="ComfyUI"):
        client.queue()
    with pytest.raises(EngineDown, match="ComfyUI"):
        client.system_stats()


@pytest.mark.parametrize("answer", [{}, {"p": None}, {"other": {}}, [], "x"])
def test_a_prompt_that_has_not_ended_has_no_history(http, answer):
    http.get(f"{URL}/history/p", json=answer)
    assert ComfyClient(URL).history("p") is None


@pytest.mark.parametrize("said", [b"x", b"[]", b"{}", b'{"subfolder": ""}'])
def test_an_upload_without_a_name_is_none(http, said):
    http.post(f"{URL}/upload/image", body=said)
    with pytest.raises(EngineDown, match="what the file is called"):
        ComfyClient(URL).upload("a.png", b"x", "image/png")


def test_an_upload_goes_by_the_name_and_folder_that_the_engine_says(http):
    http.post(f"{URL}/upload/image", json={"name": "a (1).png", "subfolder": "in", "type": "input"})
    assert ComfyClient(URL).upload("a.png", b"x", "image/png") == "in/a (1).png"
    body = http.calls[0].request.body
    assert b'filename="a.png"' in body
    assert b"image/png" in body


def test_an_engine_without_object_info_knows_no_class(http):
    http.get(f"{URL}/object_info/A%2FB", status=404)
    assert ComfyClient(URL).node_info("A/B") == {}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, "ws://127.0.0.1:8188/ws?clientId=me"),
        ("https://gpu.example/comfy/", "wss://gpu.example/comfy/ws?clientId=me"),
    ],
)
def test_the_sockets_address(url, expected):
    assert ComfyClient(url).socket_address("me") == expected


# the wait for an end


class Engine:
    """An engine that answers look after look from a script; its last word stands."""

    def __init__(self, *script):
        self._script = list(script)
        self.dropped, self.interrupted = [], []

    def queue(self):
        now = self._script[0] if len(self._script) == 1 else self._script.pop(0)
        if isinstance(now, Exception):
            raise now
        self._ended = now == "ended"
        return Queue({"p": "me"} if now == "running" else {}, {"p": "me"} if now == "waiting" else {})

    def history(self, _prompt_id):
        return {"outputs": {}} if self._ended else None

    def drop(self, ids):
        self.dropped += ids

    def interrupt(self, prompt_id):
        self.interrupted.append(prompt_id)


class Socket:
    """A websocket that tells what it is given, each frame a second after the other, and then nothing."""

    def __init__(self, clock, *frames, is_open=True):
        self._clock = clock
        self._frames = list(frames)
        self.is_open = is_open
        self.closed = 0

    def next(self, _timeout_s):
        self._clock.advance(1.0)
        return self._frames.pop(0) if self._frames else None

    def close(self):
        self.closed += 1


def awaited(clock, engine, socket, *, deadline_s=60.0, is_interrupted=lambda: False):
    watch = Watch(engine, "me", clock, clock.advance)
    return watch.await_end(Track("p", sampled()), socket, deadline_s=deadline_s, is_interrupted=is_interrupted)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (["waiting", "running", "ended"], None),
        (["running", EngineDown("busy"), NoSuchRoute("busy"), "ended"], None),
        (["running", "gone"], EngineLost),
        (["running", NobodyListens("refused")], EngineLost),
        (["running"], Overdue),
        ([EngineDown("silent")], Overdue),
        (["waiting"], EngineBusy),
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_only_queue_and_history_say_how_it_ended(clock: FakeClock, script, expected, is_open):
    engine, socket = Engine(*script), Socket(clock, is_open=is_open)
    if expected is None:
        assert awaited(clock, engine, socket) == {"outputs": {}}
    else:
        with pytest.raises(expected):
            awaited(clock, engine, socket)
    assert engine.dropped == (["p"] if expected is EngineBusy else [])


def test_an_event_of_the_end_is_believed_only_when_the_history_says_so(clock: FakeClock):
    end = json.dumps({"type": "execution_success", "data": {"prompt_id": "p"}})
    assert awaited(clock, Engine("running", "running", "ended"), Socket(clock, end)) == {"outputs": {}}


def test_a_socket_that_has_been_silent_for_long_is_opened_anew(clock: FakeClock):
    socket = Socket(clock)
    with pytest.raises(Overdue):
        awaited(clock, Engine("running"), socket, deadline_s=DEAF_S + 5)
    assert socket.closed


def test_an_interrupted_prompt_is_told_to_end_until_it_is_gone(clock: FakeClock):
    engine = Engine("waiting", "waiting", "running", "running", "running", "gone")
    with pytest.raises(Interrupted):
        awaited(clock, engine, Socket(clock), is_interrupted=lambda: True)
    assert set(engine.dropped) == {"p"}
    assert set(engine.interrupted) == {"p"}
