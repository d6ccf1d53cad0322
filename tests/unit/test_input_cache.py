"""Fetched pictures kept: by content, within bytes, and each address for a few minutes only."""

from __future__ import annotations

import hashlib

import pytest
from fakes import FakeClock

from scheduler.domain.ports import InputImage
from scheduler.stores.input_cache import FRESH_S, MAX_ADDRESSES, InputCache


def image(data: bytes) -> InputImage:
    return InputImage(
        data=data,
        media_type="image/png",
        extension=".png",
        width=1,
        height=1,
        sha256=hashlib.sha256(data).hexdigest(),
    )


@pytest.fixture
def cache(clock: FakeClock) -> InputCache:
    return InputCache(clock.monotonic, max_bytes=100)


def test_an_address_leads_to_what_was_found_there_for_a_few_minutes(cache, clock):
    first, second = image(b"a" * 40), image(b"b" * 40)
    cache.keep("http://a/", first)
    clock.advance(FRESH_S - 1)
    assert cache.at("http://a/") is first
    cache.keep("http://b/", second)
    clock.advance(1)
    assert cache.at("http://a/") is None
    assert cache.at("http://b/") is second


def test_content_outlives_its_address(cache, clock):
    kept = image(b"a" * 40)
    cache.keep("http://a/", kept)
    clock.advance(FRESH_S * 1000)
    assert cache.known(kept.sha256) is kept


def test_what_was_not_used_for_the_longest_goes_first(cache):
    images = [image(bytes([n]) * 40) for n in range(3)]
    cache.keep("http://0/", images[0])
    cache.keep("http://1/", images[1])
    assert cache.at("http://0/") is images[0]
    cache.keep("http://2/", images[2])
    assert [cache.at(f"http://{n}/") for n in range(3)] == [images[0], None, images[2]]


def test_the_same_content_under_many_addresses_is_kept_once(cache):
    for n in range(10):
        cache.keep(f"http://{n}/", image(b"a" * 90))
    assert {cache.at(f"http://{n}/").sha256 for n in range(10)} == {image(b"a" * 90).sha256}


def test_what_is_larger_than_the_bound_is_not_kept_and_drives_nothing_out(cache):
    small, large = image(b"a" * 40), image(b"b" * 101)
    cache.keep("http://a/", small)
    cache.keep("http://b/", large)
    assert cache.at("http://b/") is None
    assert cache.at("http://a/") is small


def test_addresses_are_bounded_too(cache):
    kept = image(b"a")
    for n in range(MAX_ADDRESSES + 1):
        cache.keep(f"http://{n}/", kept)
    assert cache.at("http://0/") is None
    assert cache.at("http://1/") is kept


def test_a_turn_that_fails_leaves_the_next_one_free(cache):
    with pytest.raises(RuntimeError), cache.turn("http://a/"):
        raise RuntimeError
    with cache.turn("http://a/"), cache.turn("http://b/"):
        pass
    assert cache._turns == {}
