"""The engine adapter over a stubbed HTTP: what it asks, what it makes of the answers, who is interrupted."""

import base64
import io
import json
import re
import sys
import threading

import pytest
import responses
from fakes import FakeClock, FakeInputs
from PIL import Image
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ReadTimeout
from structlog.testing import capture_logs
from urllib3.exceptions import ProtocolError

from scheduler.domain.errors import (
    BadResult,
    Counts,
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    Transient,
)
from scheduler.domain.task import Progress, Task, TaskType
from scheduler.engines.restart import RestartCommand
from scheduler.engines.sdwebui import SdWebUiEngine
from scheduler.sd_api_client import SdApiClient

URL = "http://127.0.0.1:7861"
API = f"{URL}/sdapi/v1"
MODELS = [
    {"title": "a.safetensors [aaaaaaaaaa]", "model_name": "a", "hash": "aaaaaaaaaa", "filename": "/m/a.safetensors"},
    {"title": "b.safetensors", "model_name": "b", "hash": None, "sha256": None, "filename": "/m/b.safetensors"},
]
A, B = MODELS[0]["title"], MODELS[1]["title"]
SAMPLERS = [{"name": "Euler", "aliases": ["k_euler"]}, {"name": "DPM++ 2M", "aliases": []}]
NOT_FOUND = {"detail": "Not Found"}
IDLE = {"progress": 0.0, "eta_relative": 0.0, "state": {"job": "", "job_count": 0, "job_timestamp": "1"}}
BUSY = {
    "progress": 0.34,
    "eta_relative": 8.6,
    "state": {"job": "scripts_txt2img", "job_count": 1, "job_timestamp": "2", "sampling_step": 2, "sampling_steps": 6},
}


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 10, 30)).save(out, "PNG")
    return out.getvalue()


def good(count=1, model="a", **changes):
    info = {"all_seeds": list(range(9)), "sampler_name": "Euler", "sd_model_name": model} | changes
    return {"images": [base64.b64encode(png()).decode()] * count, "parameters": {}, "info": json.dumps(info)}


class World:
    """The engine under test, its clock, and what it was asked."""

    def __init__(self, http: responses.RequestsMock, tmp_path) -> None:
        self.http = http
        self.clock = FakeClock()
        self.restarts = tmp_path / "restarts"
        code = f"open({str(self.restarts)!r}, 'a').write('x')"
        self.engine = SdWebUiEngine(
            "sdwebui",
            SdApiClient(URL),
            clock=self.clock,
            max_pixels=1 << 20,
            inputs=FakeInputs(),
            runtimes=frozenset({"sdwebui"}),
            restart_command=[sys.executable, "-c", code],
            sleep=self.clock.advance,
        )
        self.says("options", {"sd_model_checkpoint": A})
        self.says("sd-models", MODELS)
        self.says("samplers", SAMPLERS)
        self.says("schedulers", [{"name": "karras", "label": "Karras"}])
        self.says("progress", IDLE)
        for route in ("interrupt", "refresh-checkpoints", "unload-checkpoint"):
            self.says(route, {}, method="POST")

    def says(self, route, answer, *, method="GET", status=200) -> None:
        url = re.compile(re.escape(f"{API}/{route}") + r"(\?.*)?$")
        self.http.remove(method, url)
        if isinstance(answer, Exception):
            self.http.add(method, url, body=answer)
        elif callable(answer):
            self.http.add_callback(method, url, callback=answer, content_type="application/json")
        else:
            self.http.add(method, url, json=answer, status=status)

    def renders(self, answer, *, route="txt2img", status=200) -> None:
        self.says(route, answer, method="POST", status=status)

    def asked(self, route) -> int:
        return sum(1 for call in self.http.calls if f"/sdapi/v1/{route}" in call.request.url)

    def body(self, route="txt2img"):
        return json.loads([call for call in self.http.calls if call.request.url.endswith(route)][-1].request.body)

    def prepare(self, task_type=TaskType.TXT2IMG, checkpoint=None, **payload):
        return self.engine.prepare(task(task_type, checkpoint, **payload), seed_key="t:1")

    def generate(self, *, deadline_s=60.0, checkpoint=None, **payload):
        return self.engine.generate(self.prepare(checkpoint=checkpoint, **payload), deadline_s=deadline_s)


def task(task_type=TaskType.TXT2IMG, checkpoint=None, **payload):
    return Task(
        task_id="t", task_type=task_type, payload={"prompt": "a cat"} | payload, fingerprint="", checkpoint=checkpoint
    )


@pytest.fixture
def world(tmp_path):
    with responses.RequestsMock(assert_all_requests_are_fired=False) as http:
        yield World(http, tmp_path)


# readiness


def test_a_ready_engine(world):
    world.engine.probe()
    assert world.engine.title(None) == A
    assert world.engine.title("b") == B
    assert world.engine.title("unknown") == "unknown"
    assert world.engine.loaded() is None


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (NOT_FOUND, 404, "not there"),
        ({"error": "HTTPException", "detail": "Not authenticated"}, 401, "api_auth"),
        ({}, 502, "502"),
        ([], 200, "A1111"),
        (RequestsConnectionError("refused"), None, "no answer"),
        (ReadTimeout("slow"), None, "no answer"),
    ],
)
def test_an_engine_that_is_not_up(world, answer, status, words):
    world.says("options", answer, status=status)
    with pytest.raises(EngineDown, match=words):
        world.engine.probe()


def test_the_lists_are_asked_for_once_until_the_engine_was_away(world):
    for _ in range(3):
        world.engine.probe()
        world.prepare(checkpoint="a")
    assert (world.asked("options"), world.asked("sd-models"), world.asked("samplers")) == (3, 1, 1)
    world.says("options", NOT_FOUND, status=404)
    with pytest.raises(EngineDown):
        world.engine.probe()
    world.says("options", {"sd_model_checkpoint": B})
    world.engine.probe()
    assert (world.asked("sd-models"), world.engine.title(None)) == (2, B)


# preparing


def test_the_payloads_checkpoint_wins_and_settings_stay(world):
    overrides = {"sd_model_checkpoint": "b", "CLIP_stop_at_last_layers": 2}
    run = world.prepare(checkpoint="a", override_settings=overrides)
    assert run.checkpoint == B
    assert json.loads(run.body)["override_settings"] == {"sd_model_checkpoint": B, "CLIP_stop_at_last_layers": 2}


def test_a_task_without_a_checkpoint_names_none(world):
    run = world.prepare()
    assert run.checkpoint is None
    assert "override_settings" not in json.loads(run.body)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"checkpoint": "nope"}, "checkpoint"),
        ({"override_settings": {"sd_model_checkpoint": "nope"}}, "payload.override_settings.sd_model_checkpoint"),
        ({"override_settings": {"sd_model_checkpoint": 5}}, "payload.override_settings.sd_model_checkpoint"),
    ],
)
def test_an_unknown_checkpoint_is_refused_naming_some(world, given, field):
    with pytest.raises(Rejected) as caught:
        world.prepare(**given)
    assert caught.value.field == field
    assert A in caught.value.message


def test_a_new_checkpoint_is_found_by_asking_again_then_by_a_refresh(world):
    world.engine.probe()
    late = [*MODELS, {"title": "late.safetensors", "model_name": "late"}]
    later = [*late, {"title": "later.safetensors", "model_name": "later"}]
    world.says("sd-models", late)
    assert world.prepare(checkpoint="late").checkpoint == "late.safetensors"
    assert world.asked("refresh-checkpoints") == 0

    def refresh(_request):
        world.says("sd-models", later)
        return 200, {}, "null"

    world.says("refresh-checkpoints", refresh, method="POST")
    assert world.prepare(checkpoint="later").checkpoint == "later.safetensors"


def test_refreshes_are_not_had_for_the_asking(world):
    for _ in range(3):
        with pytest.raises(Rejected):
            world.prepare(checkpoint="nope")
    assert world.asked("refresh-checkpoints") == 1
    world.clock.advance(11)
    with pytest.raises(Rejected):
        world.prepare(checkpoint="nope")
    assert world.asked("refresh-checkpoints") == 2


def test_an_engine_too_busy_to_look_is_no_refusal(world):
    world.says("refresh-checkpoints", ReadTimeout(), method="POST")
    with pytest.raises(Transient) as caught:
        world.prepare(checkpoint="nope")
    assert type(caught.value) is Transient
    assert caught.value.counts is Counts.NOTHING


def test_an_unknown_sampler_is_refused_before_rendering(world):
    with pytest.raises(Rejected) as caught:
        world.prepare(sampler_name="Eular")
    assert (caught.value.field, "one of Euler" in caught.value.message) == ("payload.sampler_name", True)
    assert world.prepare(sampler_name="DPM++ 2M Karras").sampler == "DPM++ 2M"


def test_without_a_list_of_samplers_the_answer_tells(world):
    world.says("samplers", "404: Not Found", status=404)
    world.renders(good(sampler_name="DPM++ 2M"))
    answer = world.generate(sampler_name="NoSuch")
    with pytest.raises(Rejected, match="NoSuch"):
        answer.output()


def test_preparing_without_an_engine_says_so(world):
    world.says("options", RequestsConnectionError("refused"))
    with pytest.raises(EngineDown):
        world.prepare()


def test_extras_need_no_lists(world):
    image = base64.b64encode(png()).decode()
    world.renders({"html_info": "", "image": image}, route="extra-single-image")
    run = world.prepare(TaskType.EXTRA_SINGLE, image=image)
    assert run.path == "/sdapi/v1/extra-single-image"
    assert len(world.engine.generate(run, deadline_s=5).output().images) == 1
    assert world.asked("options") == 0
    assert world.engine.smaller(run) is run


def test_smaller_is_the_same_pictures_one_by_one(world):
    run = world.prepare(seed=5, batch_size=2, n_iter=2, width=64, height=64)
    small = world.engine.smaller(run)
    assert json.loads(small.body) == json.loads(run.body) | {"batch_size": 1, "n_iter": 4}
    assert (small.image_count, small.task) == (4, run.task)


# running


def test_a_good_run(world):
    world.renders(good(2, model="b"))
    run = world.prepare(checkpoint="b", batch_size=2, width=64, height=64, sampler_name="k_euler")
    output = world.engine.generate(run, deadline_s=60).output()
    assert (len(output.images), output.checkpoint, output.sampler) == (2, B, "Euler")
    assert world.engine.loaded() == B
    assert world.body()["sampler_name"] == "Euler"
    assert world.asked("txt2img") == 1


def test_the_option_is_never_posted(world):
    world.renders(good(model="b"))
    world.generate(checkpoint="b").output()
    assert not [call for call in world.http.calls if call.request.method == "POST" and "options" in call.request.url]


def test_the_wrong_model_makes_the_lists_be_asked_for_again(world):
    world.renders(good(model="a"))
    answer = world.generate(checkpoint="b")
    with pytest.raises(BadResult, match=r"b\.safetensors"):
        answer.output()
    assert world.engine.loaded() == A
    world.prepare()
    assert world.asked("sd-models") == 2


def test_an_answer_read_late_does_not_tell_what_is_loaded_now(world):
    world.renders(good(model="a"))
    late = world.generate(checkpoint="a")
    world.renders(good(model="b"))
    world.generate(checkpoint="b")
    late.output()
    assert world.engine.loaded() == B


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (422, {"detail": [{"loc": ["body", "steps"], "msg": "value is not a valid integer"}]}, Rejected),
        (500, {"error": "OutOfMemoryError", "errors": "CUDA out of memory."}, OutOfMemory),
        (500, {"error": "SafetensorError", "errors": "header"}, Fatal),
        (500, {"error": "Surprise", "errors": "?"}, Transient),
        (502, {}, EngineDown),
        (504, {}, EngineLost),
    ],
)
def test_other_answers_go_by_the_table(world, status, answer, kind):
    world.renders(answer, status=status)
    with pytest.raises(kind) as caught:
        world.generate()
    assert type(caught.value) is kind


def test_a_route_that_a_ready_engine_lacks_is_tried_elsewhere(world):
    world.renders(NOT_FOUND, status=404)
    with pytest.raises(Transient) as caught:
        world.generate()
    assert (type(caught.value), caught.value.counts) == (Transient, Counts.TRY)


def test_a_route_that_is_not_there_yet_is_an_engine_down(world):
    run = world.prepare()
    world.renders(NOT_FOUND, status=404)
    world.says("options", NOT_FOUND, status=404)
    with pytest.raises(EngineDown):
        world.engine.generate(run, deadline_s=5)


def test_a_lost_engine_has_nothing_loaded(world):
    world.renders(good())
    world.generate().output()
    assert world.engine.loaded() == A
    world.renders(RequestsConnectionError(ProtocolError("Connection aborted.", ConnectionResetError())))
    with pytest.raises(EngineLost):
        world.generate()
    assert world.engine.loaded() is None


# deadlines


def overdue(world, *states):
    """Let the run time out, and progress say `states` one after the other, the last for ever."""
    run = world.prepare()
    world.renders(good())
    world.engine.generate(run, deadline_s=60)
    world.renders(ReadTimeout())
    left = list(states)

    def progress(_request):
        return 200, {}, json.dumps(left.pop(0) if len(left) > 1 else left[0])

    world.says("progress", progress)
    return run


def test_a_run_past_its_deadline_is_interrupted_and_fails(world):
    run = overdue(world, BUSY, BUSY, BUSY, IDLE)
    with pytest.raises(DeadlineExceeded, match=r"task_deadline_s \(60 s\)"):
        world.engine.generate(run, deadline_s=60)
    assert world.asked("interrupt") == 1


def test_another_job_than_ours_means_that_ours_ended(world):
    other = BUSY | {"state": BUSY["state"] | {"job_timestamp": "3"}}
    run = overdue(world, BUSY, BUSY, other)
    with pytest.raises(DeadlineExceeded):
        world.engine.generate(run, deadline_s=60)


def test_an_engine_that_does_not_obey_hangs(world):
    run = overdue(world, BUSY)
    started_s = world.clock.monotonic()
    with pytest.raises(EngineHung):
        world.engine.generate(run, deadline_s=60)
    assert 30 <= world.clock.monotonic() - started_s < 31


def test_an_engine_that_does_not_answer_after_the_deadline_hangs(world):
    run = overdue(world, BUSY)
    world.says("progress", ReadTimeout())
    world.says("interrupt", ReadTimeout(), method="POST")
    with pytest.raises(EngineHung):
        world.engine.generate(run, deadline_s=60)


def test_a_build_without_interrupt_hangs_at_once(world):
    run = overdue(world, BUSY)
    for method, route in (("GET", "progress"), ("POST", "interrupt")):
        world.says(route, "", method=method, status=404)
    with pytest.raises(EngineHung):
        world.engine.generate(run, deadline_s=60)


def test_the_next_run_waits_until_the_late_one_is_gone(world):
    run = overdue(world, BUSY, BUSY, BUSY, IDLE)
    with pytest.raises(DeadlineExceeded):
        world.engine.generate(run, deadline_s=60)
    seen = [BUSY, BUSY, BUSY, IDLE]
    posted_when_left = []
    world.says("progress", lambda _request: (200, {}, json.dumps(seen.pop(0))))
    world.renders(lambda _request: (posted_when_left.append(len(seen)), (200, {}, json.dumps(good())))[1])
    world.engine.generate(run, deadline_s=60).output()
    assert posted_when_left == [0]


def test_a_job_left_by_someone_before_us_is_waited_for(world):
    # A scheduler that was killed in mid-render leaves the engine rendering.
    seen = [BUSY, BUSY, IDLE]
    world.says("progress", lambda _request: (200, {}, json.dumps(seen.pop(0))))
    world.renders(good())
    world.generate().output()
    assert seen == []
    world.generate().output()


def test_a_job_that_never_ends_costs_the_next_task_nothing(world):
    world.says("progress", BUSY)
    with pytest.raises(EngineHung) as caught:
        world.generate(deadline_s=60)
    assert caught.value.counts is Counts.NOTHING
    assert world.asked("txt2img") == 0


def test_a_build_that_tells_no_progress_is_not_waited_for(world):
    world.says("progress", "", status=404)
    world.renders(good())
    assert world.generate().output().images
    assert world.engine.progress() is None


# interrupts


def during(world, act):
    """Render once, with `act` called while the engine is at it; return what generate raised or returned."""
    run = world.prepare()
    done = []

    def render(_request):
        worker = threading.Thread(target=lambda: done.append(act(run)))
        worker.start()
        worker.join(10)
        return 200, {}, json.dumps(good())

    world.renders(render)
    try:
        return done, world.engine.generate(run, deadline_s=60)
    except Interrupted as error:
        return done, error


def test_an_interrupted_run_brings_nothing_although_the_engine_says_200(world):
    done, outcome = during(world, world.engine.interrupt)
    assert (done, type(outcome)) == ([True], Interrupted)
    assert world.asked("interrupt") == 1


def test_only_the_run_that_renders_can_be_interrupted(world):
    other = world.prepare()
    done, outcome = during(world, lambda _run: world.engine.interrupt(other))
    assert done == [False]
    assert outcome.output().images
    assert world.engine.interrupt(other) is False
    assert world.asked("interrupt") == 0


def test_an_interrupt_that_the_engine_did_not_hear_still_ends_the_run(world):
    world.says("interrupt", RequestsConnectionError("refused"), method="POST")
    done, outcome = during(world, world.engine.interrupt)
    assert (done, type(outcome)) == ([False], Interrupted)


def test_a_run_interrupted_before_it_was_posted_is_not_posted(world):
    run = world.prepare()
    done = []

    def progress(_request):
        done.append(world.engine.interrupt(run))
        return 200, {}, json.dumps(BUSY)

    world.says("progress", progress)
    with pytest.raises(Interrupted):
        world.engine.generate(run, deadline_s=60)
    assert (done, world.asked("txt2img"), world.asked("interrupt")) == ([True], 0, 0)


def test_an_interrupt_ends_before_another_run_begins(world):
    """The answer to run 1 comes while its interrupt is on the way: run 2 must not be posted until that is over."""
    run, order = world.prepare(), []
    entered, answered = threading.Event(), threading.Event()

    def interrupt(_request):
        entered.set()
        answered.wait(10)
        order.append("interrupt over")
        return 200, {}, "{}"

    def render(_request):
        order.append("render")
        if len(order) == 1:
            threading.Thread(target=world.engine.interrupt, args=(run,), daemon=True).start()
            assert entered.wait(10)
            threading.Timer(0.2, answered.set).start()
        return 200, {}, json.dumps(good())

    world.says("interrupt", interrupt, method="POST")
    world.renders(render)
    with pytest.raises(Interrupted):
        world.engine.generate(run, deadline_s=60)
    world.engine.generate(world.prepare(), deadline_s=60)
    assert order == ["render", "interrupt over", "render"]


def test_progress_is_that_of_our_run_only(world):
    world.says("progress", BUSY)
    assert world.engine.progress() is None  # the engine works, for someone else
    world.says("progress", IDLE)

    def look(_run):
        world.says("progress", BUSY)
        return world.engine.progress()

    done, _ = during(world, look)
    assert done == [Progress(34, 2, 9)]


@pytest.mark.parametrize(
    "answer", [{}, {"state": None}, {"progress": "x", "eta_relative": None, "state": {"job": "j"}}]
)
def test_progress_of_other_builds(world, answer):
    done, outcome = during(world, lambda _run: (world.says("progress", answer), world.engine.progress())[1])
    assert done == [None if "progress" not in answer else Progress(0, 0, 0)]
    assert outcome.output().images


# after failures


def test_memory_is_freed(world):
    world.renders(good())
    world.generate().output()
    world.engine.free_memory()
    assert world.asked("unload-checkpoint") == 1
    assert world.engine.loaded() is None


def test_what_freeing_brought_is_told_as_far_as_the_engine_tells_it(world):
    free = [100, 900]
    world.says("memory", lambda _: (200, {}, json.dumps({"cuda": {"system": {"free": free.pop(0), "total": 1000}}})))
    with capture_logs() as logs:
        world.engine.free_memory()
    [told] = logs
    assert (told["event"], told["engine"]) == ("engine_memory_freed", "sdwebui")
    assert (told["free_before_bytes"], told["free_bytes"], told["total_bytes"]) == (100, 900, 1000)

    for answer in ({"cuda": {"error": "unavailable"}}, {"cuda": None}, {}, [], RequestsConnectionError("refused")):
        world.says("memory", answer)
        with capture_logs() as logs:
            world.engine.free_memory()
        assert [told["free_bytes"] for told in logs] == [None]
    assert world.asked("unload-checkpoint") == 6


def test_a_build_that_cannot_unload_is_no_engine_down(world):
    world.says("unload-checkpoint", "", method="POST", status=404)
    world.engine.free_memory()
    world.says("options", RequestsConnectionError("refused"))
    with pytest.raises(EngineDown):
        world.engine.free_memory()


def test_the_golden_task_is_tiny_and_known(world):
    world.engine.probe()
    world.renders(good())
    world.engine.golden(deadline_s=60)
    body = world.body()
    assert (body["width"], body["height"], body["steps"], body["seed"], body["prompt"]) == (64, 64, 1, 1, "golden")
    assert body["override_settings"] == {"sd_model_checkpoint": A}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"images": [], "info": "{}"}, 200),
        ({"images": ["aGVsbG8="], "info": "{}"}, 200),
        ({"error": "RuntimeError", "errors": "CUDA error: device-side assert triggered"}, 500),
        ({"error": "OutOfMemoryError", "errors": "CUDA out of memory."}, 500),
        (RequestsConnectionError(ProtocolError("Connection aborted.", ConnectionResetError())), None),
        (ReadTimeout(), None),
    ],
)
def test_a_golden_task_that_fails_is_fatal(world, answer, status):
    world.engine.probe()
    world.renders(answer, status=status)
    with pytest.raises(Fatal, match="tiny known task"):
        world.engine.golden(deadline_s=60)


def test_a_golden_task_without_an_engine_is_an_engine_down(world):
    world.says("options", RequestsConnectionError("refused"))
    with pytest.raises(EngineDown):
        world.engine.golden(deadline_s=60)


def test_restarts_are_ten_minutes_apart(world):
    world.renders(good())
    world.generate().output()
    assert world.engine.restart() is True
    assert world.engine.loaded() is None
    world.clock.advance(599)
    assert world.engine.restart() is False
    world.clock.advance(1)
    assert world.engine.restart() is True
    assert world.restarts.read_text() == "xx"


def test_after_a_restart_the_engine_must_be_idle_first(world):
    world.renders(good())
    world.generate().output()
    asked = world.asked("progress")
    world.generate().output()
    assert world.asked("progress") == asked
    world.engine.restart()
    world.generate().output()
    assert world.asked("progress") == asked + 1


@pytest.mark.parametrize("command", [[], [sys.executable, "-c", "raise SystemExit(3)"], ["/no/such/command"]])
def test_a_restart_that_did_not_happen(clock, command):
    assert RestartCommand(command, clock).run("e") is False
