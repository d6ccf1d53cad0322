"""The stand-in's engine room on a clock that only its own waits move: interrupts, switches, faults, seeds, times."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from scheduler.local.serving.pace import Pace
from scheduler.local.standin.engine import Engine
from scheduler.local.standin.fields import read
from scheduler.local.standin.forms import EXTRA_SINGLE, IMG2IMG, TXT2IMG
from scheduler.local.standin.pictures import decode, encode
from scheduler.local.standin.refusals import EngineError
from scheduler.local.standin.settings import CHECKPOINT

STEP_S, SWITCH_S = 0.5, 8.0
FILES = ["dawn.safetensors", "dusk.safetensors"]
DUSK = {"override_settings": {CHECKPOINT: "dusk"}}


class Died(BaseException):
    """Stands for the end of the process."""


class Room:
    """An engine whose time passes only while it waits; `at` does something at a moment of that time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._orders: list[tuple[float, Callable[[], None]]] = []
        self.engine = Engine(
            FILES,
            Pace(seconds_per_step=STEP_S, switch_seconds=SWITCH_S),
            pause=self._pass,
            clock=lambda: self.now_s,
            die=self._die,
        )

    def at(self, moment_s: float, order: Callable[[], None]) -> None:
        self._orders.append((moment_s, order))

    def interrupt(self) -> None:
        self.engine.state.interrupted = True

    def render(self, **body: Any) -> dict[str, Any]:
        values = read(TXT2IMG, {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 1} | body)
        return self.engine.generate("txt2img", values)

    def remake(self, *images: str, **body: Any) -> dict[str, Any]:
        usual = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 1, "init_images": list(images)}
        return self.engine.generate("img2img", read(IMG2IMG, usual | body))

    def took(self, work: Callable[[], Any]) -> float:
        began_s = self.now_s
        work()
        return self.now_s - began_s

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        due = [order for moment_s, order in self._orders if moment_s <= self.now_s]
        self._orders = [entry for entry in self._orders if entry[0] > self.now_s]
        for order in due:
            order()

    @staticmethod
    def _die(_code: int) -> None:
        raise Died


@pytest.fixture
def room() -> Room:
    return Room()


def info_of(answer: dict[str, Any]) -> dict[str, Any]:
    return json.loads(answer["info"])


def size_of(encoded: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).size


def words(refusal: pytest.ExceptionInfo[EngineError]) -> tuple[int, str]:
    return refusal.value.status, refusal.value.body["error"]


# time


def test_a_render_takes_its_steps_and_no_more(room: Room) -> None:
    assert room.took(lambda: room.render(steps=7)) == 7 * STEP_S
    assert room.took(lambda: room.render(steps=7, batch_size=3)) == 7 * STEP_S
    assert room.took(lambda: room.render(steps=7, n_iter=3)) == 21 * STEP_S


def test_img2img_takes_its_share_of_the_steps(room: Room) -> None:
    source = encode(Image.new("RGB", (64, 64)), "", "png")
    assert room.took(lambda: room.remake(source, steps=20, denoising_strength=0.5)) == 11 * STEP_S


def test_high_resolution_takes_a_second_stage_and_gives_a_larger_picture(room: Room) -> None:
    answer: list[dict[str, Any]] = []
    assert room.took(lambda: answer.append(room.render(enable_hr=True, hr_second_pass_steps=2))) == 6 * STEP_S
    assert size_of(answer[0]["images"][0]) == (128, 128)
    answer.append(room.render(enable_hr=True, hr_resize_x=96))
    assert size_of(answer[1]["images"][0]) == (96, 96)


def test_a_switch_takes_time_only_when_other_weights_are_wanted(room: Room) -> None:
    assert room.took(lambda: room.render(**DUSK)) == SWITCH_S + 4 * STEP_S
    assert room.took(lambda: room.render(**DUSK)) == 4 * STEP_S
    assert room.took(room.render) == SWITCH_S + 4 * STEP_S
    room.engine.weights.unload()
    assert room.took(room.render) == SWITCH_S + 4 * STEP_S


def test_busy_times_tell_switches_from_renders(room: Room) -> None:
    room.render(**DUSK)
    assert room.engine.stats()["busy"] == [
        [0.0, SWITCH_S, "switch", "dusk.safetensors"],
        [SWITCH_S, SWITCH_S + 4 * STEP_S, "render", "a cat"],
    ]


# interrupts


def test_an_interrupt_acts_at_the_next_step_and_its_answer_looks_whole(room: Room) -> None:
    whole = room.render(steps=10)
    began_s = room.now_s
    room.at(began_s + 2.9 * STEP_S, room.interrupt)
    cut = room.render(steps=10)
    assert room.now_s - began_s == 3 * STEP_S
    assert len(cut["images"]) == 1
    assert cut["images"] != whole["images"]
    different = {key for key, value in info_of(cut).items() if value != info_of(whole)[key]}
    assert different <= {"job_timestamp", "subseed", "all_subseeds"}
    assert room.engine.stats()["renders"] == {"a cat": 2}
    assert room.engine.stats()["renders_whole"] == {"a cat": 1}


def test_an_interrupted_mark_stays_until_the_next_job(room: Room) -> None:
    room.interrupt()
    whole = room.render()
    assert room.engine.state.interrupted is False
    room.at(room.now_s + STEP_S, room.interrupt)
    assert room.render()["images"] != whole["images"]
    assert room.engine.state.snapshot()["state"]["interrupted"] is True
    assert room.render()["images"] == whole["images"]


def test_an_interrupt_in_the_second_of_three_batches_gives_two_images_and_three_seeds(room: Room) -> None:
    room.at(5.5 * STEP_S, room.interrupt)
    answer = room.render(n_iter=3)
    assert len(answer["images"]) == 2
    assert len(info_of(answer)["infotexts"]) == 2
    assert info_of(answer)["all_seeds"] == [1, 2, 3]
    assert answer["images"][0] == room.render()["images"][0], "the first was whole"


def test_an_interrupt_while_weights_load_leaves_no_image_at_all(room: Room) -> None:
    room.at(SWITCH_S, room.interrupt)
    answer = room.render(**DUSK)
    assert answer["images"] == []
    assert info_of(answer)["sd_model_name"] == "dusk"


def test_a_skip_spoils_one_batch_and_goes_on_to_the_next(room: Room) -> None:
    whole = room.render(n_iter=2)["images"]
    room.at(room.now_s + STEP_S, lambda: setattr(room.engine.state, "skipped", True))
    skipped = room.render(n_iter=2)["images"]
    assert skipped[0] != whole[0]
    assert skipped[1] == whole[1]


# progress


def test_progress_creeps_from_a_hundredth_and_its_guess_is_wild_at_first(room: Room) -> None:
    seen: list[dict[str, Any]] = []
    for moment in range(1, 7):
        room.at(moment * STEP_S, lambda: seen.append(room.engine.state.snapshot()))
    room.render(steps=6)
    assert [round(snapshot["progress"], 2) for snapshot in seen] == [0.01, 0.18, 0.34, 0.51, 0.68, 0.84]
    assert seen[0]["eta_relative"] > 10 * seen[2]["eta_relative"]
    assert seen[0]["state"]["job"] == "scripts_txt2img"
    idle = room.engine.state.snapshot()
    assert (idle["progress"], idle["eta_relative"], idle["state"]["job"], idle["state"]["job_count"]) == (0, 0, "", 0)
    assert (idle["state"]["job_no"], idle["state"]["sampling_step"], idle["state"]["sampling_steps"]) == (1, 0, 6)


def test_batches_are_named_in_progress(room: Room) -> None:
    seen: list[dict[str, Any]] = []
    room.at(6 * STEP_S, lambda: seen.append(room.engine.state.snapshot()["state"]))
    room.render(n_iter=3)
    assert (seen[0]["job"], seen[0]["job_count"], seen[0]["job_no"]) == ("Batch 2 out of 3", 3, 1)


# checkpoints and options


def test_an_unknown_override_checkpoint_uses_the_one_that_the_options_name(room: Room) -> None:
    room.render(**DUSK)
    answer = room.render(override_settings={CHECKPOINT: "nope"})
    assert info_of(answer)["sd_model_name"] == "dawn"


def test_an_override_can_be_made_to_stay(room: Room) -> None:
    room.render(**DUSK, override_settings_restore_afterwards=False)
    assert room.engine.weights.settings.get(CHECKPOINT).startswith("dusk.safetensors [")
    assert info_of(room.render())["sd_model_name"] == "dusk"


def test_other_overrides_are_restored_too_even_after_an_error(room: Room) -> None:
    settings = room.engine.weights.settings
    assert info_of(room.render(override_settings={"CLIP_stop_at_last_layers": 2}))["clip_skip"] == 2
    assert settings.get("CLIP_stop_at_last_layers") == 1
    with pytest.raises(EngineError) as refusal:
        room.render(override_settings={"CLIP_stop_at_last_layers": 2, "zzz_no": 1})
    assert refusal.value.body == {"error": "KeyError", "detail": "", "body": "", "errors": "'zzz_no'"}
    assert settings.get("CLIP_stop_at_last_layers") == 1


def test_options_switch_at_once_and_refuse_what_they_do_not_know(room: Room) -> None:
    assert room.took(lambda: room.engine.set_options({CHECKPOINT: "dusk.safetensors"})) == SWITCH_S
    assert room.engine.weights.settings.get(CHECKPOINT).startswith("dusk.safetensors [")
    with pytest.raises(EngineError, match="model 'nope' not found"):
        room.engine.set_options({CHECKPOINT: "nope"})
    with pytest.raises(EngineError, match="'zzz_no'"):
        room.engine.set_options({"zzz_no": 1})


def test_a_broken_checkpoint_spoils_all_renders_until_healed(room: Room) -> None:
    room.engine.faults.add({"kind": "corrupt-checkpoint", "match": "dusk"})
    with pytest.raises(EngineError) as refusal:
        room.render(**DUSK)
    assert words(refusal) == (500, "SafetensorError")
    began_s = room.now_s
    for _ in range(2):
        with pytest.raises(EngineError) as refusal:
            room.render()
        assert words(refusal) == (500, "RuntimeError")
    assert room.now_s == began_s, "at once"
    room.engine.heal()
    assert info_of(room.render())["sd_model_name"] == "dawn"


# what is asked


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"width": 0}, "RuntimeError"),
        ({"height": 7}, "RuntimeError"),
        ({"width": -64}, "RuntimeError"),
        ({"steps": 0}, "ZeroDivisionError"),
        ({"steps": -1}, "RuntimeError"),
        ({"batch_size": 0}, "IndexError"),
        ({"n_iter": 0}, "IndexError"),
        ({"prompt": None}, "AssertionError"),
        ({"steps": None}, "TypeError"),
        ({"width": 100_000, "height": 100_000}, "OutOfMemoryError"),
    ],
)
def test_values_that_the_pipeline_trips_over(room: Room, body: dict[str, Any], name: str) -> None:
    with pytest.raises(EngineError) as refusal:
        room.render(**body)
    assert words(refusal) == (500, name)
    assert room.engine.state.snapshot()["state"]["job"] == "", "idle again"
    assert len(room.render()["images"]) == 1


def test_subseed_strength_keeps_all_seeds_the_same(room: Room) -> None:
    assert info_of(room.render(batch_size=2, subseed_strength=0.5))["all_seeds"] == [1, 1]


def test_a_random_seed_is_drawn_anew(room: Room) -> None:
    seeds = {info_of(room.render(seed=seed))["seed"] for seed in (-1, -1, None)}
    assert len(seeds) == 3
    assert min(seeds) >= 0


def test_the_init_image_shows_through_as_the_strength_says(room: Room) -> None:
    red = encode(Image.new("RGB", (64, 64), (255, 0, 0)), "", "png")
    shown = []
    for strength in (0.0, 0.4, 1.0):
        answer = room.remake(red, denoising_strength=strength, width=128)
        picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
        assert picture.size == (128, 64)
        shown.append(picture.resize((1, 1)).getpixel((0, 0)))
    assert shown[0] == (255, 0, 0)
    assert shown[0][0] - shown[0][1] > shown[1][0] - shown[1][1] > shown[2][0] - shown[2][1]


def test_a_mask_says_where_the_init_image_is_kept(room: Room) -> None:
    red = encode(Image.new("RGB", (64, 64), (255, 0, 0)), "", "png")
    left = Image.new("L", (64, 64), 0)
    left.paste(255, (0, 0, 32, 64))  # white is painted anew
    sent = {"init_images": [red], "mask": encode(left.convert("RGB"), "", "png"), "denoising_strength": 1.0}
    for inverted, kept in ((0, 60), (1, 4)):
        values = read(IMG2IMG, sent | {"width": 64, "height": 64, "steps": 1, "inpainting_mask_invert": inverted})
        answer = room.engine.generate("img2img", values, decode(values["mask"]))
        picture = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
        assert picture.getpixel((kept, 32)) == (255, 0, 0)
        assert picture.getpixel((64 - kept, 32)) != (255, 0, 0)
        assert (answer["parameters"]["mask"], answer["parameters"]["init_images"]) == (None, None)


def test_several_init_images_set_the_batch(room: Room) -> None:
    source = encode(Image.new("RGB", (64, 64)), "", "png")
    assert len(room.remake(source, source, batch_size=4)["images"]) == 2
    with pytest.raises(EngineError, match="bad number of images passed: 2; expecting 1 or less"):
        room.remake(source, source)


def test_a_grid_comes_first_only_when_images_are_saved(room: Room) -> None:
    assert len(room.render(batch_size=2)["images"]) == 2
    saved = room.render(batch_size=2, save_images=True)
    assert len(saved["images"]) == 3
    assert info_of(saved)["index_of_first_image"] == 1
    assert size_of(saved["images"][0]) == (128, 64)


# faults


@pytest.mark.parametrize(("kind", "name"), [("oom", "OutOfMemoryError"), ("fatal", "RuntimeError")])
def test_an_error_strikes_mid_render_as_often_as_ordered(room: Room, kind: str, name: str) -> None:
    room.engine.faults.add({"kind": kind, "count": 2, "match": "cat", "after_steps": 3})
    assert len(room.render(prompt="a dog")["images"]) == 1
    for _ in range(2):
        began_s = room.now_s
        with pytest.raises(EngineError) as refusal:
            room.render()
        assert words(refusal) == (500, name)
        assert room.now_s - began_s == 3 * STEP_S
        assert refusal.value.body["errors"].startswith("CUDA ")
    assert len(room.render()["images"]) == 1


def test_a_crash_ends_the_process(room: Room) -> None:
    room.engine.faults.add({"kind": "crash"})
    with pytest.raises(Died):
        room.render()


def test_slow_steps(room: Room) -> None:
    room.engine.faults.add({"kind": "slow", "factor": 10})
    assert room.took(room.render) == 40 * STEP_S
    assert room.took(room.render) == 4 * STEP_S


def test_words_in_a_prompt_order_nothing(room: Room) -> None:
    for word in ("oom", "fatal", "crash", "hang", "engine-500", "black"):
        assert len(room.render(prompt=word)["images"]) == 1


@pytest.mark.parametrize("kind", ["oom", "black", "corrupt-image"])
def test_faults_strike_extras_too(room: Room, kind: str) -> None:
    source = encode(Image.new("RGB", (64, 64), (255, 0, 0)), "", "png")
    values = read(EXTRA_SINGLE, {"image": source})
    good, _ = room.engine.extras(values, [source])
    room.engine.faults.add({"kind": kind})
    if kind == "oom":
        with pytest.raises(EngineError):
            room.engine.extras(values, [source])
    else:
        assert room.engine.extras(values, [source])[0] != good
    assert room.engine.extras(values, [source])[0] == good


@pytest.mark.parametrize("order", [{}, {"kind": "earthquake"}, {"kind": "oom", "colour": "red"}])
def test_an_order_that_makes_no_sense_is_refused(room: Room, order: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"earthquake|None|colour"):
        room.engine.faults.add(order)
    assert room.engine.stats()["faults"] == []
