"""The engine adapter against the WebUI's stand-in, a real process: renders, switches, interrupts, faults, deaths."""

import base64
import io
import threading
import time

import pytest
from fakes import FakeInputs
from PIL import Image

from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import (
    BadResult,
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
)
from scheduler.domain.task import Task, TaskType
from scheduler.engines.sdwebui import SdWebUiEngine
from scheduler.local.standin.process import StandinOptions, StandinProcess
from scheduler.sd_api_client import SdApiClient

DAWN, DUSK = "standin-dawn", "standin-dusk"
DEADLINE_S = 60.0


def engine_at(standin, auth=None) -> SdWebUiEngine:
    client = SdApiClient(standin.base_url, auth)
    return SdWebUiEngine(
        "sdwebui",
        client,
        clock=SystemClock(),
        max_pixels=1 << 22,
        inputs=FakeInputs(),
        runtimes=frozenset({"sdwebui"}),
        restart_command=(),
    )


@pytest.fixture(scope="module")
def shared():
    with StandinProcess(StandinOptions(seconds_per_step=0.01, switch_seconds=0.05)) as process:
        yield process


@pytest.fixture
def standin(shared):
    yield shared
    shared.heal()


@pytest.fixture
def engine(standin):
    it = engine_at(standin)
    it.probe()
    return it


def task(task_type=TaskType.TXT2IMG, checkpoint=None, **payload):
    small = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler"}
    return Task(task_id="t", task_type=task_type, payload=small | payload, fingerprint="", checkpoint=checkpoint)


def render(engine, *, deadline_s=DEADLINE_S, checkpoint=None, task_type=TaskType.TXT2IMG, **payload):
    run = engine.prepare(task(task_type, checkpoint, **payload), seed_key="t:1")
    return engine.generate(run, deadline_s=deadline_s).output()


def until(condition, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_a_batch(engine):
    output = render(engine, batch_size=2, n_iter=2, seed=7)
    assert [image.seed for image in output.images] == [7, 8, 9, 10]
    assert len({image.data for image in output.images}) == 4
    assert output.sampler == "Euler"
    assert output.checkpoint.startswith(DAWN)
    assert output.warnings == ()


def test_one_at_a_time_makes_the_same_pixels(engine):
    run = engine.prepare(task(batch_size=2, n_iter=2, seed=7), seed_key="t:1")
    whole = engine.generate(run, deadline_s=DEADLINE_S).output()
    small = engine.generate(engine.smaller(run), deadline_s=DEADLINE_S).output()

    def pixels(output):
        return [Image.open(io.BytesIO(image.data)).tobytes() for image in output.images]

    assert pixels(small) == pixels(whole)
    assert [image.seed for image in small.images] == [image.seed for image in whole.images]


def test_a_random_seed_makes_the_same_picture_again(engine):
    first, second = render(engine, seed=-1), render(engine, seed=-1)
    assert first.images[0].seed == second.images[0].seed
    assert first.images[0].data == second.images[0].data


def test_checkpoints_by_many_names_and_back_to_the_default(engine, standin):
    for name in (DUSK, f"{DUSK}.safetensors", engine.title(DUSK)):
        output = render(engine, checkpoint=name)
        assert output.checkpoint.startswith(DUSK)
        assert engine.loaded() == engine.title(DUSK)
    assert render(engine, checkpoint=hash_of_dusk(standin)).checkpoint.startswith(DUSK)
    assert render(engine).checkpoint.startswith(DAWN)
    assert engine.loaded() == engine.title(None)


def hash_of_dusk(standin) -> str:
    """Return the short hash of the other checkpoint, which the server knows since its first load."""
    listed = SdApiClient(standin.base_url).models()
    return next(entry["hash"] for entry in listed if entry["model_name"] == DUSK)


def test_a_checkpoint_that_was_put_there_later(engine, standin):
    with pytest.raises(Rejected, match=DAWN):
        render(engine_at(standin), checkpoint="late")
    standin.drop_checkpoint("late.safetensors")
    assert render(engine, checkpoint="late").checkpoint.startswith("late.safetensors")


def test_img2img_and_extras(engine):
    picture = base64.b64encode(render(engine).images[0].data).decode()
    output = render(engine, task_type=TaskType.IMG2IMG, init_images=[f"data:image/png;base64,{picture}"])
    assert len(output.images) == 1
    bigger = Task(
        task_id="t",
        task_type=TaskType.EXTRA_SINGLE,
        payload={"image": picture, "upscaler_1": "Lanczos", "upscaling_resize": 2},
        fingerprint="",
    )
    image = engine.generate(engine.prepare(bigger, seed_key="t:1"), deadline_s=DEADLINE_S).output().images[0]
    assert (image.width, image.height) == (128, 128)
    several = Task(
        task_id="t",
        task_type=TaskType.EXTRA_BATCH,
        payload={"imageList": [{"data": picture, "name": f"{n}.png"} for n in range(3)], "upscaler_1": "Lanczos"},
        fingerprint="",
    )
    run = engine.prepare(several, seed_key="t:1")
    assert len(engine.generate(run, deadline_s=DEADLINE_S).output().images) == 3


def test_samplers(engine):
    assert render(engine, sampler_name="DPM++ 2M Karras").sampler == "DPM++ 2M"
    with pytest.raises(Rejected, match="Euler a"):
        render(engine, sampler_name="Eular a")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"override_settings": {"zzz_no": 1}}, "payload.override_settings.zzz_no"),
        ({"script_name": "nope"}, "payload.script_name"),
        ({"alwayson_scripts": {"nope": {"args": []}}}, "payload.alwayson_scripts.nope"),
    ],
)
def test_what_only_the_engine_can_refuse(engine, payload, field):
    with pytest.raises(Rejected) as caught:
        render(engine, **payload)
    assert caught.value.field == field
    assert caught.value.engine


def test_memory(engine, standin):
    standin.fault("oom", max_batch=1)
    run = engine.prepare(task(batch_size=2), seed_key="t:1")
    with pytest.raises(OutOfMemory):
        engine.generate(run, deadline_s=DEADLINE_S)
    engine.free_memory()
    assert engine.loaded() is None
    assert len(engine.generate(engine.smaller(run), deadline_s=DEADLINE_S).output().images) == 2


@pytest.mark.parametrize(("kind", "words"), [("corrupt-image", "image 1"), ("short", "1 of 2"), ("wrong-model", DAWN)])
def test_silent_failures(engine, standin, kind, words):
    standin.fault(kind)
    with pytest.raises(BadResult, match=words):
        render(engine, batch_size=2, checkpoint=DAWN)


def test_black_pictures_are_told(engine, standin):
    standin.fault("black")
    output = render(engine, width=512, height=512)
    assert output.images[0].all_black
    assert len(output.warnings) == 1


def test_a_broken_gpu_is_fatal_and_the_golden_task_tells(engine, standin):
    standin.fault("fatal", count=2)
    with pytest.raises(Fatal):
        render(engine)
    with pytest.raises(Fatal):
        engine.golden(deadline_s=DEADLINE_S)
    engine.golden(deadline_s=DEADLINE_S)


def test_progress_and_interrupt(engine):
    run = engine.prepare(task(steps=2000), seed_key="t:1")
    outcomes = []

    def work():
        try:
            outcomes.append(engine.generate(run, deadline_s=DEADLINE_S))
        except Interrupted as error:
            outcomes.append(error)

    worker = threading.Thread(target=work)
    assert engine.interrupt(run) is False
    worker.start()
    until(lambda: (seen := engine.progress()) is not None and seen.step > 0)
    assert engine.interrupt(run) is True
    worker.join(20)
    assert isinstance(outcomes[0], Interrupted)
    assert engine.progress() is None
    assert render(engine).images


def test_a_deadline_and_the_run_after_it(engine, standin):
    with pytest.raises(DeadlineExceeded):
        render(engine, prompt="too long", steps=5000, deadline_s=0.5)
    assert render(engine, prompt="after it").images
    stats = standin.stats()
    assert (stats["renders"]["too long"], stats["renders_whole"].get("too long", 0)) == (1, 0)
    assert (stats["renders"]["after it"], stats["renders_whole"]["after it"]) == (1, 1)


def test_a_hung_engine(engine, standin, monkeypatch):
    monkeypatch.setattr("scheduler.engines.sdwebui.INTERRUPT_GRACE_S", 0.5)
    standin.fault("hang")
    with pytest.raises(EngineHung):
        render(engine, deadline_s=0.5)
    standin.heal()
    assert render(engine).images


def test_an_engine_that_dies_in_mid_render_and_comes_back():
    process = StandinProcess(StandinOptions(seconds_per_step=0.01, switch_seconds=0.05))
    with process:
        engine = engine_at(process)
        render(engine)
        process.fault("crash")
        with pytest.raises(EngineLost):
            render(engine)
        assert engine.loaded() is None
        process.wait(10)
        process.kill()  # nothing is left of it but its pipes
        with pytest.raises(EngineDown):
            engine.probe()
        with pytest.raises(EngineDown):
            render(engine)
        process.start(port=process.port)
        engine.probe()
        assert render(engine).images


@pytest.mark.parametrize("ui", [False, True])
def test_an_engine_that_is_starting_is_down_until_its_routes_are_there(ui):
    with StandinProcess(StandinOptions(seconds_per_step=0.01, startup_seconds=1.0, ui=ui)) as process:
        engine = engine_at(process)
        with pytest.raises(EngineDown, match="not there"):
            engine.probe()

        def is_up():
            try:
                engine.probe()
            except EngineDown:
                return False
            return True

        until(is_up)
        assert render(engine).images


def test_credentials():
    with StandinProcess(StandinOptions(seconds_per_step=0.01, auth="me:secret")) as process:
        with pytest.raises(EngineDown, match="api_auth"):
            engine_at(process, ("me", "wrong")).probe()
        engine = engine_at(process, ("me", "secret"))
        engine.probe()
        assert render(engine).images
