"""What is learned of how long tasks take, and that it stays bounded."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.autoscale.service_times import MOST_CLASSES, PRIOR_S, ServiceTimes


def learned(times, *, engine="sdwebui", checkpoint="a", work=10.0, seconds=20.0, load_s=0.0, count=1):
    for _ in range(count):
        times.learn(engine=engine, checkpoint=checkpoint, work=work, seconds=seconds, load_s=load_s)
    return times


def test_nothing_known_gives_the_prior():
    times = ServiceTimes()
    assert times.mean_s == PRIOR_S
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=5.0) == PRIOR_S


def test_seconds_grow_with_work_within_a_class():
    times = learned(ServiceTimes())
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=30.0) == pytest.approx(60.0)


def test_classes_are_told_apart_and_the_unknown_take_their_engines_figure():
    times = learned(learned(ServiceTimes(), count=20), checkpoint="xl", seconds=80.0, count=20)
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=10.0) == pytest.approx(20.0)
    assert times.expected_s(engine="sdwebui", checkpoint="xl", work=10.0) == pytest.approx(80.0)
    assert 20.0 < times.expected_s(engine="sdwebui", checkpoint="new", work=10.0) < 80.0
    assert 20.0 < times.expected_s(engine="comfyui", checkpoint="new", work=10.0) < 80.0


def test_loads_are_apart_from_the_task_but_part_of_the_mean():
    times = learned(ServiceTimes(), seconds=25.0, load_s=5.0)
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=10.0) == pytest.approx(20.0)
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=10.0, is_loaded=False) == pytest.approx(25.0)
    assert times.mean_s == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("work", "seconds", "load_s"), [(0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 5.0, 6.0), (1.0, 5.0, -1.0)]
)
def test_what_cannot_be_is_left_out(work, seconds, load_s):
    times = learned(ServiceTimes(), work=work, seconds=seconds, load_s=load_s)
    assert times.mean_s == PRIOR_S


def test_the_longest_unseen_class_is_forgotten_first():
    times = learned(ServiceTimes(), checkpoint="kept", seconds=20.0)
    for n in range(2 * MOST_CLASSES):
        learned(times, checkpoint=f"c{n}", seconds=200.0)
        learned(times, checkpoint="kept", seconds=20.0)
    assert times.expected_s(engine="sdwebui", checkpoint="kept", work=10.0) == pytest.approx(20.0)
    assert len(times.remembered()["classes"]) == MOST_CLASSES
    assert times.expected_s(engine="sdwebui", checkpoint="c0", work=10.0) < 200.0, "judged by its engine now"


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0.1, 1e4), st.floats(0.1, 1e4)), max_size=150))
def test_it_survives_json_and_stays_under_ten_kilobytes(tasks):
    times = ServiceTimes()
    for checkpoint, work, seconds in tasks:
        times.learn(
            engine="sdwebui", checkpoint=f"checkpoint-{checkpoint}-v1.0.safetensors", work=work, seconds=seconds
        )
    text = json.dumps(times.remembered())
    assert len(text) < 10_000
    again = ServiceTimes.from_remembered(json.loads(text))
    assert again.remembered() == times.remembered()
    for checkpoint in range(3):
        key = {"engine": "sdwebui", "checkpoint": f"checkpoint-{checkpoint}-v1.0.safetensors", "work": 7.0}
        assert again.expected_s(**key) == pytest.approx(times.expected_s(**key), rel=1e-3)
