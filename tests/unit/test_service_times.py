"""What is learned of how long tasks take, and that it stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.service_times import MOST_CLASSES, ServiceTimes


def learned(times, *, engine="sdwebui", checkpoint="a", work=10.0, seconds=20.0, count=1):
    for _ in range(count):
        times.learn(engine=engine, checkpoint=checkpoint, work=work, seconds=seconds)
    return times


def test_nothing_known_says_nothing():
    assert ServiceTimes().expected_s(engine="sdwebui", checkpoint="a", work=5.0) is None


def test_seconds_grow_with_work_within_a_class():
    times = learned(ServiceTimes())
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=30.0) == pytest.approx(60.0)


def test_classes_are_told_apart_and_the_unknown_take_their_engines_figure():
    times = learned(learned(ServiceTimes(), count=20), checkpoint="xl", seconds=80.0, count=20)
    assert times.expected_s(engine="sdwebui", checkpoint="a", work=10.0) == pytest.approx(20.0)
    assert times.expected_s(engine="sdwebui", checkpoint="xl", work=10.0) == pytest.approx(80.0)
    assert 20.0 < times.expected_s(engine="sdwebui", checkpoint="new", work=10.0) < 80.0
    assert 20.0 < times.expected_s(engine="comfyui", checkpoint="new", work=10.0) < 80.0


@pytest.mark.parametrize(("work", "seconds"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 5.0), (1.0, -5.0)])
def test_what_cannot_be_is_left_out(work, seconds):
    assert len(learned(ServiceTimes(), work=work, seconds=seconds)) == 0


def test_the_longest_unseen_class_is_forgotten_first():
    times = learned(ServiceTimes(), checkpoint="kept", seconds=20.0)
    for n in range(2 * MOST_CLASSES):
        learned(times, checkpoint=f"c{n}", seconds=200.0)
        learned(times, checkpoint="kept", seconds=20.0)
    assert times.expected_s(engine="sdwebui", checkpoint="kept", work=10.0) == pytest.approx(20.0)
    assert len(times) == MOST_CLASSES
    assert times.expected_s(engine="sdwebui", checkpoint="c0", work=10.0) < 200.0, "judged by its engine now"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 1e3), st.floats(0.01, 1e3)), min_size=1))
def test_what_is_expected_lies_within_what_was_seen(tasks):
    times = ServiceTimes()
    for checkpoint, work, seconds in tasks:
        learned(times, checkpoint=checkpoint, work=work, seconds=seconds)
    rates = [seconds / work for _, work, seconds in tasks]
    expected = times.expected_s(engine="sdwebui", checkpoint="a", work=1.0)
    assert min(rates) * 0.999 <= expected <= max(rates) * 1.001
