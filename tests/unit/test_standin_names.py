"""How the stand-in takes names: samplers that are never refused, checkpoints whose titles change."""

from __future__ import annotations

import pytest

from scheduler.local.standin.catalogue import sampling
from scheduler.local.standin.checkpoints import Shelf


@pytest.mark.parametrize(
    ("sampler", "scheduler", "used"),
    [
        ("Euler", None, ("Euler", "Automatic")),
        ("Euler", "karras", ("Euler", "Karras")),
        ("Euler", "Karras", ("Euler", "Karras")),
        ("Euler", "NoSuch", ("Euler", "Automatic")),
        ("Euler Karras", None, ("Euler", "Karras")),
        ("DPM++ 2M Karras", None, ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE", None, ("DPM++ 2M SDE", "Exponential")),
        ("DPM++ 2M SGMUniform", None, ("DPM++ 2M", "SGM Uniform")),
        ("NoSuch", None, ("DPM++ 2M", "Karras")),
        ("NoSuch", "Beta", ("DPM++ 2M", "Beta")),
        ("euler", None, ("DPM++ 2M", "Karras")),
        ("", None, ("DPM++ 2M", "Karras")),
    ],
)
def test_a_sampler_is_never_refused(sampler: str, scheduler: str | None, used: tuple[str, str]) -> None:
    assert sampling(sampler, scheduler) == used


def test_a_title_gains_its_hash_at_the_first_load_and_keeps_it() -> None:
    shelf = Shelf(["a.safetensors", "sub/b.ckpt"])
    second = shelf.find("sub/b.ckpt")
    assert second is not None
    assert shelf.title(second) == "sub/b.ckpt"
    assert shelf.listing()[1]["hash"] is None
    shelf.load(second)
    shelf.load(None)
    assert shelf.title(second) == f"sub/b.ckpt [{second.short_hash}]"
    assert shelf.listing()[1] == {
        "title": f"sub/b.ckpt [{second.short_hash}]",
        "model_name": "sub_b",
        "hash": second.short_hash,
        "sha256": second.sha256,
        "filename": "/standin/models/Stable-diffusion/sub/b.ckpt",
        "config": None,
    }


def test_a_checkpoint_goes_by_all_its_names_but_by_its_hash_only_once_that_is_known() -> None:
    shelf = Shelf(["a.safetensors", "sub/b.ckpt"])
    second = shelf.find("sub_b")
    assert second is not None
    short = second.short_hash
    plain, hashed = (
        {"sub/b.ckpt", "sub/b", "sub_b"},
        {short, second.sha256, f"sub/b [{short}]", f"sub/b.ckpt [{short}]"},
    )
    assert {shelf.find(name) for name in plain} == {second}
    assert {shelf.find(name) for name in hashed} == {None}
    shelf.load(second)
    assert {shelf.find(name) for name in plain | hashed} == {second}
    assert shelf.find("b") is shelf.find(None) is None


def test_a_new_file_is_seen_after_a_refresh() -> None:
    shelf = Shelf(["a.safetensors"])
    shelf.drop("b.safetensors")
    assert shelf.find("b") is None
    shelf.refresh()
    assert shelf.find("b") is not None


def test_there_is_always_another_checkpoint_to_be_wrong_with() -> None:
    shelf = Shelf(["a.safetensors"])
    assert shelf.other(shelf.first()) != shelf.first()
