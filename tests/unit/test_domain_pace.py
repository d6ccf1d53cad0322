"""How much work is taken in hand, and which of it goes first."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.domain.pace import (
    MAX_WORK,
    MIN_WORK,
    MOST_AHEAD,
    REFILL_SHARE,
    WINDOW_S,
    WINDOW_TASKS,
    InHand,
    Pace,
    ask_for,
    choose,
    work_size,
)

durations = st.floats(0.0, 3600.0)
works = st.floats(MIN_WORK, MAX_WORK)

# work_size


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        ({"steps": 20, "width": 512, "height": 512}, 20 * 512 * 512 / 1e6),
        ({"steps": 20, "width": 1024, "height": 512, "batch_size": 2, "n_iter": 3}, 20 * 6 * 1024 * 512 / 1e6),
        ({}, 50 * 512 * 512 / 1e6),
        ({"steps": None, "width": 0}, 50 * 512 * 512 / 1e6),
        ({"steps": "20", "width": "512"}, 20 * 512 * 512 / 1e6),
        ({"steps": "many"}, 1.0),
        ({"steps": [20]}, 1.0),
        ({"steps": -20}, 1.0),
        ({"width": {"px": 512}}, 1.0),
        ({"steps": 10**400}, 1.0),
        ({"steps": 1e308, "width": 1e308}, 1.0),
        ({"steps": 1e300}, MAX_WORK),
        ({"width": 1e-200, "height": 1e-100}, MIN_WORK),
    ],
)
def test_the_size_of_a_render_is_its_steps_times_its_pixels(payload, size):
    assert work_size(payload) == pytest.approx(size)


@given(
    st.dictionaries(
        st.sampled_from(["steps", "width", "height", "batch_size", "n_iter", "prompt"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2),
    )
)
def test_any_payload_has_a_size_that_can_be_counted_with(payload):
    assert MIN_WORK <= work_size(payload) <= MAX_WORK


# Pace


def test_nothing_is_expected_before_the_first_render():
    pace = Pace()
    assert (pace.mean_s, pace.expected_s(5.0), pace.target_s(), pace.ahead()) == (None, None, 2.0, 1)


@given(st.floats(0.01, 100), works, st.integers(1, 30))
def test_equal_renders_are_expected_to_go_on_equally(seconds, work, times):
    pace = Pace()
    for _ in range(times):
        pace.learn(seconds, work, switched=False)
    assert pace.mean_s == pytest.approx(seconds)
    assert pace.expected_s(work) == pytest.approx(seconds)
    assert pace.expected_s(work / 2) == pytest.approx(seconds / 2)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=1, max_size=30))
def test_expectations_stay_within_what_was_seen(renders):
    pace = Pace()
    for seconds, work in renders:
        pace.learn(seconds, work, switched=False)
    assert min(s for s, _ in renders) - 1e-9 <= pace.mean_s <= max(s for s, _ in renders) + 1e-9
    rates = [s / w for s, w in renders]
    assert min(rates) * (1 - 1e-9) <= pace.expected_s(1.0) <= max(rates) * (1 + 1e-9)


def test_a_render_that_loaded_a_checkpoint_counts_only_until_one_did_not():
    pace = Pace()
    pace.learn(9.0, 1.0, switched=True)
    assert pace.mean_s == 9.0  # better than nothing
    pace.learn(1.0, 1.0, switched=False)
    assert pace.mean_s == pace.expected_s(1.0) == 1.0
    pace.learn(9.0, 1.0, switched=True)
    assert pace.mean_s == pace.expected_s(1.0) == 1.0


def test_a_change_of_pace_is_learnt_within_a_dozen_renders():
    pace = Pace()
    pace.learn(1.0, 1.0, switched=False)
    for _ in range(12):
        pace.learn(5.0, 1.0, switched=False)
    assert pace.mean_s == pytest.approx(5.0, rel=0.1)


@given(st.lists(durations, max_size=100), st.lists(durations, max_size=20))
def test_the_target_is_between_two_and_fifteen_seconds(receives, claims):
    pace = Pace()
    for seconds in receives:
        pace.learn_receive(seconds)
    for seconds in claims:
        pace.learn_claim(seconds)
    assert 2.0 <= pace.target_s() <= 15.0


def test_the_target_is_four_times_the_slow_receives_and_the_claim():
    pace = Pace()
    for n in range(64):
        pace.learn_receive(0.1 if n % 8 else 1.0)  # more than one in twenty takes a second
    pace.learn_claim(0.5)
    assert pace.target_s() == pytest.approx(4 * (1.0 + 0.5))


def test_slow_receives_of_long_ago_are_forgotten():
    pace = Pace()
    for seconds in [10.0] * 64 + [0.1] * 64:
        pace.learn_receive(seconds)
    assert pace.target_s() == 2.0


@given(st.none() | durations, st.lists(durations, max_size=5))
def test_one_task_is_claimed_ahead_unless_rendering_is_quicker_than_claiming(render_s, claims):
    pace = Pace()
    if render_s is not None:
        pace.learn(render_s, 1.0, switched=False)
    for seconds in claims:
        pace.learn_claim(seconds)
    assert 1 <= pace.ahead() <= MOST_AHEAD
    if not claims or render_s is None or max(claims) <= render_s:
        assert pace.ahead() == 1


@pytest.mark.parametrize(("claim_s", "ahead"), [(0.04, 1), (0.05, 1), (0.06, 2), (0.14, 3), (0.2, 4), (2.0, 4)])
def test_as_many_are_claimed_ahead_as_start_during_one_claim(claim_s, ahead):
    pace = Pace()
    pace.learn(0.05, 1.0, switched=False)
    pace.learn_claim(claim_s)
    assert pace.ahead() == ahead


# ask_for


def ask(
    *,
    seconds: float = 0.0,
    waiting: int = 0,
    unstarted: int = 0,
    is_mixed: bool = False,
    mean_s: float | None = 1.0,
    target_s: float = 2.0,
    engines: int = 1,
    most: int = 10,
    last_full: int = 0,
) -> int:
    in_hand = InHand(seconds=seconds, waiting=waiting, unstarted=unstarted, is_mixed=is_mixed)
    return ask_for(in_hand, mean_s=mean_s, target_s=target_s, engines=engines, most=most, last_full=last_full)


@st.composite
def situations(draw):
    waiting = draw(st.integers(0, 60))
    return {
        "seconds": draw(st.floats(0, 1e6)),
        "waiting": waiting,
        "unstarted": waiting + draw(st.integers(0, 8)),
        "is_mixed": draw(st.booleans()),
        "mean_s": draw(st.none() | st.floats(0, 3600)),
        "target_s": draw(st.floats(2, 15)),
        "engines": draw(st.integers(1, 8)),
        "most": draw(st.integers(1, 10)),
        "last_full": draw(st.integers(0, 10)),
    }


many = settings(max_examples=300)


@given(situations())
@many
def test_never_more_than_one_receive_may_bring_and_never_less_than_nothing(situation):
    assert 0 <= ask(**situation) <= situation["most"]


@given(situations())
@many
def test_nothing_is_taken_while_enough_is_in_hand(situation):
    assume(situation["mean_s"] is not None)
    target_s = situation["target_s"] * situation["engines"]
    if situation["seconds"] >= max(WINDOW_S * situation["engines"], target_s):
        assert ask(**situation) == 0
    if situation["seconds"] >= target_s * REFILL_SHARE and not (situation["is_mixed"] and situation["last_full"]):
        assert ask(**situation) == 0


@given(situations())
@many
def test_what_is_taken_does_not_overfill_by_more_than_one_task(situation):
    assume(situation["mean_s"])
    taken_s = (ask(**situation) - 1) * situation["mean_s"]
    limit_s = situation["engines"] * max(situation["target_s"], WINDOW_S)
    assert situation["seconds"] + taken_s <= max(situation["seconds"], limit_s) + 1e-6


@given(situations(), st.floats(0, 100))
@many
def test_more_in_hand_never_takes_more(situation, more_s):
    assert ask(**{**situation, "seconds": situation["seconds"] + more_s}) <= ask(**situation)


@given(situations(), st.integers(1, 10))
@many
def test_more_waiting_never_takes_more(situation, more):
    fuller = {**situation, "waiting": situation["waiting"] + more, "unstarted": situation["unstarted"] + more}
    assert ask(**fuller) <= ask(**situation)


@given(situations(), st.floats(0, 3600))
@many
def test_longer_tasks_are_never_taken_in_greater_number(situation, more_s):
    assume(situation["mean_s"] is not None)
    assert ask(**{**situation, "mean_s": situation["mean_s"] + more_s}) <= ask(**situation)


@given(situations())
@many
def test_the_window_widens_only_for_mixed_work_from_a_deep_queue(situation):
    plain = ask(**{**situation, "is_mixed": False, "last_full": 0})
    assert ask(**{**situation, "is_mixed": False}) == plain
    assert ask(**{**situation, "last_full": 0}) == plain
    widened = ask(**situation)
    assert widened >= plain
    if widened > plain:
        assert situation["is_mixed"]
        assert situation["last_full"]
        assert situation["waiting"] + widened <= WINDOW_TASKS * situation["engines"]


@given(situations())
@many
def test_while_nothing_is_known_one_task_waits_for_each_engine(situation):
    situation |= {"mean_s": None}
    asked = ask(**situation)
    lacking = max(0, situation["engines"] - situation["unstarted"])
    if situation["is_mixed"] and situation["last_full"]:
        assert asked <= max(lacking, 2 * situation["last_full"])
    else:
        assert asked == min(situation["most"], lacking)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (ask(mean_s=None), 1),
        (ask(mean_s=None, unstarted=1, waiting=1), 0),
        (ask(mean_s=None, engines=4), 4),
        (ask(mean_s=0.05), 10),
        (ask(mean_s=0.5), 4),
        (ask(mean_s=1.5), 2),
        (ask(mean_s=40.0), 1),
        (ask(mean_s=40.0, seconds=0.99), 1),
        (ask(mean_s=40.0, seconds=1.0), 0),
        (ask(mean_s=0.5, seconds=0.9, most=2), 2),
        (ask(mean_s=1.0, seconds=5.0, waiting=4, is_mixed=True, last_full=4), 5),
        (ask(mean_s=1.0, seconds=5.0, waiting=7, is_mixed=True, last_full=4), 3),
        (ask(mean_s=1.0, seconds=10.0, waiting=4, is_mixed=True, last_full=4), 0),
        (ask(mean_s=1.0, seconds=5.0, waiting=10, is_mixed=True, last_full=4), 0),
        (ask(mean_s=None, waiting=1, unstarted=1, is_mixed=True, last_full=1), 2),
    ],
)
def test_examples(asked, expected):
    assert asked == expected


# choose

NOW = 1000.0


def choice(*waiting: tuple[int, str | None, float], loaded: str | None = None) -> int | None:
    """`waiting` holds (queue, title, seconds since it was received)."""
    return choose([(queue, title, NOW - age_s) for queue, title, age_s in waiting], loaded=loaded, now=NOW)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (choice(), None),
        (choice((0, "a", 1)), 0),
        (choice((0, "a", 2), (0, "b", 1), loaded="b"), 1),  # the loaded one first
        (choice((0, "a", 3), (0, "b", 2), (0, "b", 1), loaded="b"), 1),  # of those the oldest
        (choice((0, "a", 3), (0, "b", 2), (0, "b", 1), loaded="c"), 1),  # else the most wanted
        (choice((0, "a", 3), (0, "b", 2), loaded="c"), 0),  # equally wanted: the older
        (choice((1, "b", 3), (0, "a", 2), loaded="b"), 1),  # but the higher queue before all that
        (choice((1, "b", 3), (1, "b", 2), (0, "a", 1), loaded="b"), 2),
        (choice((0, "a", 30), (0, "b", 1), loaded="b"), 1),  # thirty seconds are not too long
        (choice((0, "a", 31), (0, "b", 1), loaded="b"), 0),  # more are
        (choice((0, "a", 31), (0, "c", 32), (0, "b", 1), loaded="b"), 1),  # and the longest first
        (choice((1, "a", 31), (0, "b", 1), loaded="b"), 0),  # in whatever queue
        (choice((1, "a", 40), (0, "c", 31), (0, "b", 1), loaded="b"), 1),  # though the higher first
        (choice((0, None, 2), (0, "a", 1)), 0),
    ],
)
def test_who_goes_first(chosen, expected):
    assert chosen == expected


tasks_waiting = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c", None]), st.floats(0, 60)), min_size=1, max_size=20
)


@given(tasks_waiting, st.sampled_from(["a", "b", "c", "d", None]))
def test_one_is_always_chosen_and_by_the_rules(waiting, loaded):
    index = choice(*waiting, loaded=loaded)
    queue, title, age_s = waiting[index]
    overdue = [task for task in waiting if task[2] > 30.0]
    if overdue:
        assert age_s > 30.0
        assert queue == min(task[0] for task in overdue)
    else:
        own = [task for task in waiting if task[0] == queue]
        assert queue == min(task[0] for task in waiting)
        assert title == loaded or not any(task[1] == loaded for task in own)
        if title != loaded:
            wanted = [task[1] for task in own]
            assert wanted.count(title) == max(map(wanted.count, wanted))


def switches(titles: Sequence[str], *, window: int, render_s: float, load_s: float) -> tuple[int, float]:
    """Render tasks that arrive all at once, `window` of them in hand; return the switches and the longest wait."""
    queue, waiting = list(titles), []
    now, loaded, count, longest_s = 0.0, "a", 0, 0.0
    while queue or waiting:
        while queue and len(waiting) < window:
            waiting.append((0, queue.pop(0), now))
        _, title, received_s = waiting.pop(choose(waiting, loaded=loaded, now=now))
        longest_s = max(longest_s, now - received_s)
        count += title != loaded
        now += render_s + (load_s if title != loaded else 0.0)
        loaded = title
    return count, longest_s


def test_sixty_tasks_of_three_checkpoints_need_a_dozen_switches_instead_of_forty():
    counts, in_order = [], []
    for seed in range(100):
        titles = random.Random(seed).choices("abc", k=60)
        count, longest_s = switches(titles, window=WINDOW_TASKS, render_s=0.3, load_s=3.0)
        counts.append(count)
        in_order.append(switches(titles, window=1, render_s=0.3, load_s=3.0)[0])
        assert longest_s < 45  # one passed over for 30 s is next, after what is under way
    assert sum(counts) / len(counts) <= 12
    assert sum(in_order) / len(in_order) > 36


def test_a_rare_checkpoint_is_not_passed_over_for_ever():
    _, longest_s = switches(["b", *"a" * 1000], window=WINDOW_TASKS, render_s=1.0, load_s=3.0)
    assert 30 < longest_s <= 32


def test_what_is_in_hand_cannot_be_changed():
    in_hand = InHand(seconds=0.0, waiting=0, unstarted=0, is_mixed=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        in_hand.waiting = 1  # type: ignore[misc]  # the point of the test
