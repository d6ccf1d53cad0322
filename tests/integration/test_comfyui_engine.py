"""The ComfyUI adapter against its stand-in, a real process: renders, uploads, interrupts, faults, losses, deaths."""

import base64
import hashlib
import io
import threading
import uuid

import pytest
from comfy_client import CHECKPOINT, Comfy, flat, node, sampled
from fakes import FakeInputs
from PIL import Image
from webui_client import png, until

from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import (
    BadResult,
    Counts,
    DeadlineExceeded,
    EngineBusy,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    Transient,
)
from scheduler.domain.pace import Needs
from scheduler.domain.ports import InputImage
from scheduler.domain.task import Task, TaskType
from scheduler.engines.comfyui import ComfyUiEngine
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.local.comfy.process import ComfyOptions, ComfyProcess

DEADLINE_S = 60.0
LONG = 100_000
RED = base64.b64decode(png((200, 40, 40)))


class OneInput:
    """A fetcher of inputs that knows one picture."""

    def __init__(self, address, data):
        self._address = address
        self._data = data

    def image(self, address, *, field):
        if address != self._address:
            raise Rejected(f"{field} may not be fetched", field=field)
        return InputImage(
            data=self._data,
            media_type="image/png",
            extension=".png",
            width=64,
            height=64,
            sha256=hashlib.sha256(self._data).hexdigest(),
        )


def engine_at(standin, **more) -> ComfyUiEngine:
    more = {"client_id": uuid.uuid4().hex, "inputs": FakeInputs(), "restart_command": ()} | more
    client = ComfyClient(standin.base_url)
    return ComfyUiEngine(
        "comfyui", client, clock=SystemClock(), max_pixels=1 << 22, runtimes=frozenset({"comfyui"}), **more
    )


@pytest.fixture(scope="module")
def shared():
    with ComfyProcess(ComfyOptions(seconds_per_step=0.01, switch_seconds=0.02, previews=True)) as process:
        yield process


@pytest.fixture
def standin(shared):
    yield shared
    shared.heal()
    comfy = Comfy(shared.base_url)
    comfy.post("/queue", {"clear": True})
    comfy.post("/interrupt")
    until(comfy.idle)
    comfy.post("/free", {"free_memory": True})


@pytest.fixture
def comfy(standin):
    return Comfy(standin.base_url, standin)


@pytest.fixture
def own():
    with ComfyProcess(ComfyOptions(seconds_per_step=0.01, switch_seconds=0.02)) as process:
        yield process


@pytest.fixture
def engine(standin):
    it = engine_at(standin)
    it.probe()
    return it


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr("scheduler.engines.comfyui_watch.SILENCE_S", 0.2)
    monkeypatch.setattr("scheduler.engines.comfyui_watch.POLL_S", 0.05)
    monkeypatch.setattr("scheduler.engines.comfyui_watch.WAKE_S", 0.05)


def task(payload, checkpoint=None):
    return Task(task_id="t", task_type=TaskType.PIPELINE, payload=payload, fingerprint="", checkpoint=checkpoint)


def render(engine, payload, *, deadline_s=DEADLINE_S, seed_key="t:1"):
    run = engine.prepare(task(payload), seed_key=seed_key)
    return engine.generate(run, deadline_s=deadline_s).output()


def pixels(image):
    return Image.open(io.BytesIO(image.data)).convert("RGB").tobytes()


class Rendering:
    """A run on a thread of its own, as the engine's thread is in the product."""

    def __init__(self, engine, payload, *, deadline_s=DEADLINE_S):
        self.run = engine.prepare(task(payload), seed_key="t:1")
        self._engine = engine
        self._deadline_s = deadline_s
        self._outcome = None
        self.sent = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self):
        try:
            self._outcome = self._engine.generate(
                self.run, deadline_s=self._deadline_s, on_sent=lambda _: self.sent.set()
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
            self._outcome = error

    def outcome(self):
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self._outcome

    def at_step(self, least=1):
        until(lambda: (seen := self._engine.progress()) is not None and seen.step >= least)


# pictures


def test_a_batch(engine):
    output = render(engine, sampled(batch=3, seed=7))
    assert [image.seed for image in output.images] == [7, 7, 7]
    assert len({image.data for image in output.images}) == 3
    assert {(image.width, image.height, image.media_type) for image in output.images} == {(64, 64, "image/png")}
    assert (output.checkpoint, output.sampler, output.warnings) == (CHECKPOINT, "euler", ())
    assert engine.loaded() == CHECKPOINT == engine.title("standin-dawn")


@pytest.mark.parametrize("seed", [-1, "-1", None])
def test_a_random_seed_makes_the_same_picture_again_and_another_run_another(engine, seed):
    first, again = (render(engine, {"prompt": sampled(seed=seed)}) for _ in range(2))
    other = render(engine, {"prompt": sampled(seed=seed)}, seed_key="t:2")
    assert first.images[0].seed == again.images[0].seed != other.images[0].seed
    assert pixels(first.images[0]) == pixels(again.images[0]) != pixels(other.images[0])


def test_a_graph_that_is_cached_whole_is_good_all_the_same(engine, comfy):
    first, again = render(engine, sampled(seed=8)), render(engine, sampled(seed=8))
    assert [image.data for image in first.images] == [image.data for image in again.images]
    histories = comfy.get("/history").values()
    assert len({entry["outputs"]["9"]["images"][0]["filename"] for entry in list(histories)[-2:]}) == 1


def test_one_at_a_time_makes_the_same_pixels(engine):
    run = engine.prepare(task(sampled(batch=3, seed=9)), seed_key="t:1")
    whole = engine.generate(run, deadline_s=DEADLINE_S).output()
    small = engine.generate(engine.smaller(run), deadline_s=DEADLINE_S).output()
    assert [pixels(image) for image in small.images] == [pixels(image) for image in whole.images]
    assert [image.seed for image in small.images] == [9, 9, 9]


def test_outputs_of_every_kind_are_kept_in_the_graphs_order_and_nothing_temporary(engine):
    graph = sampled(batch=2, seed=10) | {
        "20": node("SaveAnimatedWEBP", images=["8", 0], filename_prefix="w"),
        "21": node("VHS_VideoCombine", images=["8", 0], filename_prefix="v", frame_rate=8),
        "22": node("EmptyAudio", duration=1.0),
        "23": node("SaveAudio", audio=["22", 0], filename_prefix="folder/a"),
        "24": node("PreviewImage", images=["8", 0]),
        "25": node("PreviewAny", source="just words"),
    }
    kinds = ["image/png", "image/png", "image/webp", "video/mp4", "audio/flac"]
    output = render(engine, graph)
    assert [image.media_type for image in output.images] == kinds
    assert [image.width for image in output.images] == [64, 64, 64, None, None]
    assert [image.extension for image in output.images][2:] == [".webp", ".mp4", ".flac"]
    with_temp = render(engine, {"prompt": graph, "include_temp": True})
    assert [image.media_type for image in with_temp.images] == [*kinds, "image/png", "image/png"]


def test_a_graph_that_keeps_nothing_is_refused(engine):
    with pytest.raises(Rejected, match="include_temp"):
        render(engine, flat(1, save="PreviewImage"))


def test_all_black_pictures_are_told(engine, standin):
    standin.fault("black")
    output = render(engine, sampled(side=256, seed=11))
    assert output.images[0].all_black
    assert "all black" in output.warnings[0]


def test_what_a_graph_asks_for_is_what_is_loaded_after_it(engine):
    needs = engine.needs(task(sampled(steps=3, batch=2, side=512)))
    assert needs.work == pytest.approx(3 * 2 * 512 * 512 / 1e6)
    engine.generate(engine.prepare(task(sampled()), seed_key="t:1"), deadline_s=60).output()
    assert engine.title(needs.checkpoint) == engine.loaded() == CHECKPOINT
    assert engine.needs(task({"nodes": []})) == Needs(), "what is no graph is refused when it is prepared"


@pytest.mark.parametrize("name", ["..", ".", "../..", "x" * 70_000, "é" * 3000, "\n", "\x00", "?", "%2e%2e"])
def test_a_class_that_cannot_be_asked_about_is_left_to_the_engine_to_refuse(engine, name):
    graph = {"1": {"class_type": name, "inputs": {"url": "https://e.example/a.png"}}} | flat()
    assert engine.prepare(task(graph), seed_key="t:1").uploads == ()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x.png",
        "/home/a/b.png",
        "~/b.png",
        "a/../../b.png",
        "..\\b.png",
        "C:\\x.png",
        "..",
        "../output/x.png [input]",
    ],
)
def test_a_name_that_leads_out_of_the_engine_s_folder_is_refused(engine, name):
    graph = {"1": node("LoadImage", image=name)} | {"2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    with pytest.raises(Rejected, match="a name in the engine's own folder") as caught:
        engine.prepare(task(graph), seed_key="t:1")
    assert caught.value.field == "payload.1.inputs.image"


@pytest.mark.parametrize("name", ["cat.png", "sub/cat.png", "a..b.png", "cat.png [output]"])
def test_a_name_in_the_engine_s_folder_is_the_engine_s_business(engine, name):
    graph = {"1": node("LoadImage", image=name)} | {"2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    assert engine.prepare(task(graph), seed_key="t:1").uploads == ()


def test_a_checkpoint_named_beside_the_graph_is_told_to_mean_nothing(engine):
    other = engine.prepare(task(sampled(), checkpoint="standin-dusk"), seed_key="t:1")
    same = engine.prepare(task(sampled(), checkpoint="standin-dawn"), seed_key="t:1")
    assert "ignored" in other.warnings[0]
    assert same.warnings == ()


# pictures that graphs start from


def loading(value, class_type="LoadImage", name="image"):
    return {"1": node(class_type, **{name: value}), "2": node("SaveImage", images=["1", 0], filename_prefix="l")}


def test_a_data_uri_is_uploaded_and_loaded(engine):
    output = render(engine, loading("data:image/png;base64," + base64.b64encode(RED).decode()))
    assert Image.open(io.BytesIO(output.images[0].data)).getpixel((5, 5)) == (200, 40, 40)


def test_the_name_that_the_engine_gives_is_the_one_that_is_used(engine, comfy):
    data = base64.b64decode(png((1, 2, 3)))
    taken = f"{hashlib.sha256(data).hexdigest()}.png"
    assert comfy.upload(taken, b"somebody else's")["name"] == taken
    run = engine.prepare(task(loading("data:image/png;base64," + base64.b64encode(data).decode())), seed_key="t:1")
    assert run.uploads == (taken.replace(".png", " (1).png"),)
    output = engine.generate(run, deadline_s=DEADLINE_S).output()
    assert Image.open(io.BytesIO(output.images[0].data)).getpixel((5, 5)) == (1, 2, 3)


@pytest.mark.parametrize("address", ["https://pictures.example/red.png", "s3://bucket/red.png"])
def test_addresses_are_fetched_where_the_class_takes_an_upload_and_nowhere_else(standin, address):
    engine = engine_at(standin, inputs=OneInput(address, RED))
    graph = loading(address, "PortraitOf", "face") | {"3": node("CLIPTextEncode", text=address, clip=["9", 1])}
    graph |= {"9": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}
    run = engine.prepare(task(graph), seed_key="t:1")
    assert run.graph["1"]["inputs"]["face"] == f"{hashlib.sha256(RED).hexdigest()}.png"
    assert run.graph["3"]["inputs"]["text"] == address
    assert engine.generate(run, deadline_s=DEADLINE_S).output().images


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://other.example/x.png", "may not be fetched"),
        ("data:image/png;base64,AAAA", "must be an image"),
        ("data:image/png;base64,!!", "must be an image"),
        ("data:nonsense", "must be an image"),
    ],
)
def test_pictures_that_cannot_be_had_are_refused_by_the_inputs_name(standin, value, words):
    engine = engine_at(standin, inputs=OneInput("https://pictures.example/red.png", RED))
    with pytest.raises(Rejected, match=words) as caught:
        engine.prepare(task({"prompt": loading(value)}), seed_key="t:1")
    assert caught.value.field == "payload.prompt.1.inputs.image"


def test_a_graph_that_stands_alone_is_named_as_such(engine):
    with pytest.raises(Rejected, match="may not be gone to") as caught:
        engine.prepare(task(loading("https://pictures.example/red.png")), seed_key="t:1")
    assert caught.value.field == "payload.1.inputs.image"


def test_an_upload_that_the_engine_lost_before_the_prompt_costs_nothing(own):
    engine = engine_at(own)
    run = engine.prepare(task(loading("data:image/png;base64," + base64.b64encode(RED).decode())), seed_key="t:1")
    own.kill()
    own.start(port=own.port)
    with pytest.raises(Transient, match="lost a picture") as caught:
        engine.generate(run, deadline_s=DEADLINE_S)
    assert caught.value.counts is Counts.NOTHING


# refusals


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"ckpt": "nope.safetensors"}, "4.inputs.ckpt_name", "nope.safetensors"),
        ({"batch": 0}, "5.inputs.batch_size", "smaller than min"),
        ({"steps": "many"}, "3.inputs.steps", "INT"),
    ],
)
def test_what_only_the_engine_can_refuse_names_node_and_input(engine, change, field, words):
    sent = []
    run = engine.prepare(task({"prompt": sampled(**change)}), seed_key="t:1")
    with pytest.raises(Rejected, match=words) as caught:
        engine.generate(run, deadline_s=DEADLINE_S, on_sent=lambda _: sent.append(1))
    assert caught.value.field == f"payload.prompt.{field}"
    assert words in caught.value.engine
    assert sent == []


def test_an_unknown_class_is_named(engine):
    with pytest.raises(Rejected, match="NoSuchNode does not exist") as caught:
        render(engine, flat() | {"7": node("NoSuchNode")})
    assert caught.value.field == "payload.7.class_type"


def test_a_part_of_the_outputs_is_not_enough_and_what_was_taken_is_ended(engine, comfy):
    graph = sampled(steps=10000) | {"30": node("SaveImage", images=["8", 0])}
    with pytest.raises(Rejected, match="only a part") as caught:
        render(engine, graph)
    assert caught.value.field == "payload.30.inputs.filename_prefix"
    assert "Required input is missing" in caught.value.engine
    assert comfy.idle()


def test_a_file_that_is_no_picture_is_the_tasks_fault(engine, comfy):
    name = comfy.upload("junk.png", b"no picture")["name"]
    with pytest.raises(Rejected, match="cannot identify") as caught:
        render(engine, loading(name))
    assert caught.value.field == "payload.1"
    assert caught.value.engine.startswith("UnidentifiedImageError")


def test_another_kind_of_task_is_refused(engine):
    with pytest.raises(Rejected) as caught:
        engine.prepare(Task(task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint=""), seed_key="t:1")
    assert caught.value.field == "task_type"


# failures of the host


def test_memory(engine, standin):
    standin.fault("oom", max_batch=1)
    run = engine.prepare(task(sampled(batch=2, seed=21)), seed_key="t:1")
    with pytest.raises(OutOfMemory) as caught:
        engine.generate(run, deadline_s=DEADLINE_S)
    assert "out of memory" in caught.value.engine
    assert engine.loaded() is None
    engine.free_memory()
    assert len(engine.generate(engine.smaller(run), deadline_s=DEADLINE_S).output().images) == 2


def test_a_broken_gpu_is_fatal_and_the_golden_graph_tells(engine, standin):
    render(engine, sampled(seed=22))
    standin.fault("fatal", count=2)
    with pytest.raises(Fatal):
        render(engine, sampled(seed=23))
    with pytest.raises(Fatal):
        engine.golden(deadline_s=DEADLINE_S)
    engine.golden(deadline_s=DEADLINE_S)
    renders = standin.stats()["renders"]
    assert renders["golden"] >= 2, "with a checkpoint that rendered before, it samples"


def test_golden_goes_without_a_checkpoint_too(own):
    engine = engine_at(own)
    engine.golden(deadline_s=DEADLINE_S)
    assert own.stats()["loaded"] is None


def test_a_corrupt_picture(engine, standin):
    standin.fault("corrupt-image")
    with pytest.raises(BadResult, match="s_"):
        render(engine, sampled(seed=24))


@pytest.mark.parametrize("kind", ["no-file", "no-output"])
def test_a_cache_that_names_nothing_any_more_is_dropped_before_the_next_run(engine, standin, kind):
    if kind == "no-output":
        render(engine, sampled(seed=25))
    standin.fault(kind)
    with pytest.raises(BadResult):
        render(engine, sampled(seed=25))
    until(lambda: _renders_anew(engine))


def _renders_anew(engine):
    try:
        return bool(render(engine, sampled(seed=25)).images)
    except BadResult:  # the engine drops its cache when it comes to it
        return False


# progress, interrupts, deadlines


def test_progress_by_node_and_step_and_a_preview(engine):
    assert (engine.progress(), engine.preview()) == (None, None)
    rendering = Rendering(engine, sampled(steps=LONG // 100, seed=31))
    rendering.at_step(5)
    seen = engine.progress()
    assert seen.node == "KSampler 3"
    assert 0 < seen.step < LONG // 100
    assert 0 <= seen.percent < 100
    until(lambda: engine.preview() is not None)
    preview = engine.preview()
    assert preview.media_type == "image/jpeg"
    assert Image.open(io.BytesIO(preview.data)).size == (64, 64)
    assert engine.interrupt(rendering.run) is True
    assert isinstance(rendering.outcome(), Interrupted)
    assert (engine.progress(), engine.preview()) == (None, None)


def test_the_prompt_is_posted_once_and_told_when_taken(own):
    engine = engine_at(own)
    rendering = Rendering(engine, sampled(seed=32))
    assert rendering.sent.wait(20)
    assert rendering.outcome().output().images
    assert own.stats()["requests"]["POST /prompt"] == 1


def test_an_interrupt_ends_the_run_and_the_next_is_whole(engine, comfy):
    rendering = Rendering(engine, sampled("too long", steps=10000))
    assert engine.interrupt(engine.prepare(task(flat()), seed_key="t:9")) is False
    rendering.at_step()
    assert engine.interrupt(rendering.run) is True
    assert isinstance(rendering.outcome(), Interrupted)
    assert engine.interrupt(rendering.run) is False
    assert render(engine, sampled(seed=33)).images
    assert comfy.standin.stats()["renders_whole"].get("too long", 0) == 0


@pytest.mark.parametrize("is_targeted", [True, False])
def test_an_interrupt_of_a_waiting_run_leaves_its_neighbour_alone(is_targeted):
    options = ComfyOptions(seconds_per_step=0.01, switch_seconds=0.02, targeted_interrupt=is_targeted)
    with ComfyProcess(options) as process:
        comfy, engine = Comfy(process.base_url, process), engine_at(process)
        neighbour = comfy.send(sampled("neighbour", steps=60))
        until(lambda: comfy.running() == [neighbour])
        rendering = Rendering(engine, sampled("ours", steps=10000))
        until(lambda: len(comfy.pending()) == 1)
        assert engine.interrupt(rendering.run) is True
        assert isinstance(rendering.outcome(), Interrupted)
        assert comfy.ended(neighbour)["status"]["status_str"] == "success"
        assert "ours" not in process.stats()["renders"]


def test_an_interrupt_by_somebody_else_is_a_try(engine, comfy):
    rendering = Rendering(engine, sampled(steps=10000))
    rendering.at_step()
    comfy.post("/interrupt")
    outcome = rendering.outcome()
    assert type(outcome) is Transient
    assert outcome.counts is Counts.TRY


def test_a_deadline_and_the_run_after_it(engine, comfy):
    with pytest.raises(DeadlineExceeded):
        render(engine, sampled("overdue", steps=10000), deadline_s=0.3)
    assert comfy.idle()
    assert render(engine, sampled("after it")).images
    assert comfy.standin.stats()["renders_whole"].get("overdue", 0) == 0


def test_the_deadline_starts_when_the_run_does(engine, comfy):
    comfy.send(sampled("before us", steps=60))
    assert render(engine, sampled("quick", steps=2), deadline_s=5).images
    neighbour = comfy.send(sampled("neighbour", steps=10000))
    with pytest.raises(EngineBusy, match="other work") as caught:
        render(engine, sampled("never began"), deadline_s=0.3)
    assert caught.value.counts is Counts.NOTHING
    assert (comfy.running(), comfy.pending()) == ([neighbour], [])


def test_a_hung_engine(engine, standin, monkeypatch):
    monkeypatch.setattr("scheduler.engines.comfyui.INTERRUPT_GRACE_S", 0.5)
    standin.fault("hang")
    with pytest.raises(EngineHung):
        render(engine, sampled(seed=34), deadline_s=0.3)
    standin.heal()
    assert render(engine, sampled(seed=34)).images


# events are not trusted


@pytest.mark.parametrize("kind", ["silent", "drop"])
def test_the_end_is_found_though_no_event_tells_of_it(engine, standin, kind):
    standin.fault(kind)
    assert render(engine, sampled(seed=41, steps=10)).images


def test_a_silent_socket_still_tells_that_the_run_has_begun(engine, standin):
    standin.fault("silent")
    rendering = Rendering(engine, sampled(seed=42, steps=10000))
    until(lambda: engine.progress() is not None)
    engine.interrupt(rendering.run)
    assert isinstance(rendering.outcome(), Interrupted)


def test_a_run_goes_well_without_any_socket(standin, monkeypatch):
    monkeypatch.setattr(ComfyClient, "socket_address", lambda _self, _id: "ws://127.0.0.1:1/ws")
    assert render(engine_at(standin), sampled(seed=46, steps=10)).images


def test_a_socket_that_is_refused_is_tried_again_and_harms_nothing(standin, monkeypatch):
    monkeypatch.setattr("scheduler.engines.comfyui_socket.REOPEN_EVERY_S", 0.05)
    http = f"{standin.base_url.replace('http', 'ws', 1)}/queue"
    monkeypatch.setattr(ComfyClient, "socket_address", lambda _self, _id: http)
    assert render(engine_at(standin), sampled(seed=47, steps=30)).images
    assert standin.stats()["requests"]["GET /queue"] > 1


def test_a_run_that_vanishes_is_lost(engine, standin):
    standin.fault("lost")
    with pytest.raises(EngineLost, match="no longer knows"):
        render(engine, sampled(seed=43))
    assert render(engine, sampled(seed=43)).images


# deaths and starts


def test_an_engine_that_dies_in_mid_run_and_comes_back(own):
    engine = engine_at(own)
    render(engine, sampled())
    own.fault("crash")
    with pytest.raises(EngineLost):
        render(engine, sampled(seed=44))
    assert engine.loaded() is None
    own.wait(10)
    own.kill()  # nothing is left of it but its pipes
    with pytest.raises(EngineDown):
        engine.probe()
    run = engine.prepare(task(sampled(seed=45)), seed_key="t:1")
    with pytest.raises(EngineDown):
        engine.generate(run, deadline_s=DEADLINE_S)
    own.start(port=own.port)
    engine.probe()
    assert engine.generate(run, deadline_s=DEADLINE_S).output().images


def test_an_engine_that_is_back_before_it_was_missed_has_lost_the_run(own, monkeypatch):
    monkeypatch.setattr("scheduler.engines.comfyui_watch.POLL_S", 60.0)
    monkeypatch.setattr("scheduler.engines.comfyui_watch.SILENCE_S", 60.0)
    engine = engine_at(own)
    rendering = Rendering(engine, sampled(steps=10000))
    rendering.at_step()
    own.kill()
    own.start(port=own.port)
    assert isinstance(rendering.outcome(), EngineLost)


def test_results_that_the_engine_takes_with_it_are_a_run_lost(own):
    engine = engine_at(own)
    answer = engine.generate(engine.prepare(task(sampled()), seed_key="t:1"), deadline_s=DEADLINE_S)
    own.kill()
    with pytest.raises(EngineLost):
        answer.output()


def test_what_a_killed_scheduler_left_is_ended_first_and_a_neighbours_is_not(own):
    comfy = Comfy(own.base_url, own)
    comfy.send(sampled("left running", steps=10000), client_id="this-host")
    comfy.send(sampled("left waiting", steps=10000), client_id="this-host")
    comfy.send(sampled("neighbour", steps=5), client_id="another")
    until(lambda: len(comfy.running()) == 1)
    assert render(engine_at(own, client_id="this-host"), sampled("ours")).images
    whole = own.stats()["renders_whole"]
    assert (whole.get("neighbour"), whole.get("ours")) == (1, 1)
    assert not {"left running", "left waiting"} & whole.keys()


def test_leftovers_that_do_not_end_hang_the_engine_and_cost_the_task_nothing(own):
    comfy = Comfy(own.base_url, own)
    own.fault("hang")  # after its first step
    with comfy.events("this-host") as socket:
        comfy.send(sampled("left hanging"), client_id="this-host")
        until(lambda: '"type": "progress",' in str(socket.recv()))
    with pytest.raises(EngineHung, match="earlier prompt") as caught:
        render(engine_at(own, client_id="this-host"), sampled("ours"), deadline_s=0.3)
    assert caught.value.counts is Counts.NOTHING


def test_a_starting_engine_is_down_until_its_port_is_open():
    with ComfyProcess(ComfyOptions(seconds_per_step=0.01, startup_seconds=0.5)) as process:
        engine = engine_at(process)
        with pytest.raises(EngineDown):
            engine.probe()

        def is_up():
            try:
                engine.probe()
            except EngineDown:
                return False
            return True

        until(is_up)
        assert engine.title("standin-dusk") == "standin-dusk.safetensors"


def test_a_restart_is_the_configured_commands(own, tmp_path):
    mark = tmp_path / "restarted"
    engine = engine_at(own, restart_command=["touch", str(mark)])
    assert engine.restart() is True
    assert mark.exists()
    assert engine.restart() is False
    assert engine_at(own).restart() is False
