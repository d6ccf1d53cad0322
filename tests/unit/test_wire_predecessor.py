"""What the predecessor's clients are shown at the end of a task."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.wire import predecessor

NOW = 1_900_000_000.25


def test_success_has_the_very_attributes_that_its_clients_read():
    attributes = predecessor.finished(["https://d1/sd/out/a-1.png", "https://d1/sd/out/a-2.png"], "", now=NOW)
    assert set(attributes) == {"taskStatus", "processRes", "processTime"}
    assert attributes["taskStatus"] == "finished"
    assert attributes["processRes"] == (
        '{"cnt": 2, "images": ["https://d1/sd/out/a-1.png", "https://d1/sd/out/a-2.png"], "error": ""}'
    )


def test_failure_is_finished_too_so_that_its_clients_stop_polling():
    attributes = predecessor.finished([], "payload.steps is 'many': not a number", now=NOW)
    assert attributes["taskStatus"] == "finished"
    assert json.loads(attributes["processRes"]) == {
        "cnt": 0,
        "images": [],
        "error": "payload.steps is 'many': not a number",
    }


@given(st.floats(min_value=1e9, max_value=4e9))
def test_the_time_is_local_and_naive(now):
    time = dt.datetime.fromisoformat(predecessor.finished([], "", now=now)["processTime"])
    assert time.tzinfo is None
    # The hour that the clocks are put back happens twice; a naive time cannot tell which of the two it is.
    assert abs(time.timestamp() - now) < 1e-5 or abs(abs(time.timestamp() - now) - 3600) < 1e-5


@given(st.lists(st.text(max_size=30), max_size=4), st.text(max_size=200))
def test_any_words_survive_in_the_result(addresses, error):
    result = json.loads(predecessor.finished(addresses, error, now=NOW)["processRes"])
    assert result == {"cnt": len(addresses), "images": addresses, "error": error}


@pytest.mark.parametrize("api", predecessor.APIS)
def test_the_paths_it_may_name_are_those_that_render(api):
    assert api.removeprefix("/sdapi/v1/") in {"txt2img", "img2img", "extra-single-image", "extra-batch-images"}
