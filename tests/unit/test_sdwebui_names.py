"""Checkpoints and samplers by all the names that people use for them."""

import pytest

from scheduler.engines.sdwebui_names import Checkpoints, Samplers, checkpoint_of, same_sampler

SHA = "3471f22757" + "0" * 54
LOADED = {
    "title": "sd15-random.safetensors [3471f22757]",
    "model_name": "sd15-random",
    "hash": "3471f22757",
    "sha256": SHA,
    "filename": "/webui/models/Stable-diffusion/sd15-random.safetensors",
    "config": None,
}
FRESH = LOADED | {"title": "sd15-random.safetensors", "hash": None, "sha256": None}
DEEP = {
    "title": "anime/Any.Thing v3.ckpt [aaaaaaaaaa]",
    "model_name": "anime_Any.Thing v3",
    "hash": "aaaaaaaaaa",
    "sha256": None,
    "filename": "/webui/models/Stable-diffusion/anime/Any.Thing v3.ckpt",
    "config": None,
}
KNOWN = Checkpoints([LOADED, DEEP])


@pytest.mark.parametrize(
    "name",
    [
        "sd15-random.safetensors [3471f22757]",
        "sd15-random.safetensors",
        "sd15-random",
        "SD15-Random",
        "3471f22757",
        SHA,
        "/webui/models/Stable-diffusion/sd15-random.safetensors",
        "Stable-diffusion/sd15-random.safetensors",
        " sd15-random ",
    ],
)
def test_every_name_finds_it(name):
    assert KNOWN.find(name).title == LOADED["title"]


@pytest.mark.parametrize(
    "name",
    [
        "anime/Any.Thing v3.ckpt",
        "anime/Any.Thing v3",
        "anime\\Any.Thing v3.ckpt",
        "anime_Any.Thing v3",
        "Any.Thing v3.ckpt",
        "Any.Thing v3",
        "models/Stable-diffusion/anime/Any.Thing v3.ckpt",
    ],
)
def test_names_with_and_without_folders(name):
    assert KNOWN.find(name).title == DEEP["title"]


@pytest.mark.parametrize(
    "name",
    [
        "sd15",
        "",
        "photo/Any.Thing v3.ckpt",
        "sd15-random.safetensors [ffffffffff]",
        "sd15-random.safetensors.bak",
    ],
)
def test_what_is_not_there_is_not_found(name):
    assert KNOWN.find(name) is None


def test_a_name_that_two_share_finds_neither_but_their_own_names_do():
    twins = Checkpoints([{"title": "a/x.safetensors"}, {"title": "b/x.safetensors"}])
    assert twins.find("x") is None
    assert twins.find("a/x").title == "a/x.safetensors"
    assert twins.find("b/x.safetensors").title == "b/x.safetensors"


def test_a_title_from_before_the_first_load_still_finds_it():
    assert Checkpoints([LOADED]).find(FRESH["title"]).title == LOADED["title"]
    assert Checkpoints([FRESH]).find(LOADED["title"]).title == FRESH["title"]


@pytest.mark.parametrize(
    ("entry", "name", "digest", "made"),
    [
        (LOADED, "sd15-random", "3471f22757", True),
        (LOADED, "sd15-random", None, True),
        (LOADED, "renamed", "3471f22757", True),
        (LOADED, "sd15-random", "ffffffffff", False),
        (LOADED, "other", None, False),
        (FRESH, "sd15-random", "3471f22757", True),
        (FRESH, "other", "3471f22757", False),
        (DEEP, "Any.Thing v3", None, True),
        (LOADED, None, None, None),
        (FRESH, None, "3471f22757", None),
    ],
)
def test_which_model_made_an_answer(entry, name, digest, made):
    assert checkpoint_of(entry).made(name, digest) is made


def test_refusals_name_the_likeliest_first_and_not_all():
    many = Checkpoints([{"title": f"model-{n:02}.safetensors"} for n in range(30)])
    shown = many.near("modle-17.safetensors")
    assert shown.startswith("model-17.safetensors")
    assert shown.endswith("and 22 more")
    assert Checkpoints([]).near("x") == "none"


NEW = Samplers(
    [
        {"name": "DPM++ 2M", "aliases": ["k_dpmpp_2m"], "options": {"scheduler": "karras"}},
        {"name": "Euler a", "aliases": ["k_euler_a", "k_euler_ancestral"], "options": {}},
        {"name": "Euler", "aliases": ["k_euler"], "options": {}},
        {"name": "DDIM", "aliases": ["ddim"], "options": {}},
    ],
    [
        {"name": "automatic", "label": "Automatic", "aliases": None},
        {"name": "karras", "label": "Karras", "aliases": None},
        {"name": "sgm_uniform", "label": "SGM Uniform", "aliases": ["SGMUniform"]},
        {"name": "uniform", "label": "Uniform", "aliases": None},
        {"name": "ddim", "label": "DDIM", "aliases": None},
    ],
)
OLD = Samplers([{"name": "DPM++ 2M Karras", "aliases": ["k_dpmpp_2m_ka"]}, {"name": "DPM++ 2M", "aliases": []}], None)
CPP = Samplers([{"name": "euler_a", "aliases": None}, {"name": "dpm++2m"}], [{"name": "karras"}])


@pytest.mark.parametrize(
    ("samplers", "name", "found"),
    [
        (NEW, "DPM++ 2M", ("DPM++ 2M", None)),
        (NEW, "dpm++ 2m", ("DPM++ 2M", None)),
        (NEW, "k_euler_ancestral", ("Euler a", None)),
        (NEW, "DPM++ 2M Karras", ("DPM++ 2M", "Karras")),
        (NEW, "Euler SGM Uniform", ("Euler", "SGM Uniform")),
        (NEW, "DDIM", ("DDIM", None)),
        (NEW, "Euler DDIM", ("Euler", "DDIM")),
        (NEW, "NoSuch", None),
        (NEW, "Karras", None),
        (NEW, "", None),
        (OLD, "DPM++ 2M Karras", ("DPM++ 2M Karras", None)),
        (OLD, "DPM++ 2M Exponential", ("DPM++ 2M", "Exponential")),
        (CPP, "Euler a", ("euler_a", None)),
        (CPP, "DPM++ 2M Karras", ("dpm++2m", "karras")),
    ],
)
def test_samplers_old_and_new(samplers, name, found):
    assert samplers.find(name) == found


def test_schedules_are_checked_only_where_they_are_listed():
    assert NEW.schedule("karras") == "Karras"
    assert NEW.schedule("NoSuch") is None
    assert OLD.schedule("NoSuch") == "NoSuch"


@pytest.mark.parametrize(
    ("asked", "used", "same"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", True),
        ("DPM++ 2M", "DPM++ 2M Karras", True),
        ("euler_a", "Euler a", True),
        ("Euler", "Euler a", False),
        ("NoSuch", "DPM++ 2M", False),
        ("NoSuch", "NONE", False),
        ("DDIM", "DDIM", True),
        ("DPM++ 2M SDE", "DPM++ 2M", False),
    ],
)
def test_same_sampler(asked, used, same):
    assert same_sampler(asked, used) is same
