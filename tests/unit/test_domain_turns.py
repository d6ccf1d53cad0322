"""Whose turn it is to receive among queues of different priority."""

from __future__ import annotations

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.turns import FULL_FOR_S, LOWER_SHARE, Turns


def test_every_queue_may_be_asked_while_no_higher_one_is_full():
    turns = Turns(3, FakeClock())
    assert [turns.may_receive(index) for index in range(3)] == [True] * 3
    turns.received(0, full=False)
    turns.received(1, full=True)
    assert [turns.may_receive(index) for index in range(3)] == [True, True, False]
    turns.received(1, full=False)
    assert [turns.may_receive(index) for index in range(3)] == [True] * 3


def test_a_full_answer_speaks_of_its_queue_for_a_second_so_that_an_empty_poll_shuts_nobody_out():
    clock = FakeClock()
    turns = Turns(2, clock)
    turns.received(0, full=True)
    assert not turns.may_receive(1)
    clock.advance(FULL_FOR_S)
    assert turns.may_receive(1)


def test_a_full_lower_queue_holds_nobody_above_it_up():
    turns = Turns(2, FakeClock())
    for _ in range(20):
        turns.received(1, full=True)
        assert turns.may_receive(0)


@pytest.mark.parametrize("queues", [2, 3])
def test_while_the_highest_is_full_one_receive_in_eight_goes_to_a_lower(queues):
    turns, asked = Turns(queues, FakeClock()), [0] * queues
    turns.received(0, full=True)
    for _ in range(800):
        lower = next((index for index in range(1, queues) if turns.may_receive(index)), 0)
        asked[lower] += 1
        turns.received(lower, full=True)
    assert asked[0] == 800 - 800 // LOWER_SHARE
    assert sum(asked[1:]) == 800 // LOWER_SHARE == 100


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_the_highest_may_always_be_asked_and_a_lower_one_never_waits_for_eight_receives(answers):
    turns, refused = Turns(4, FakeClock()), 0
    for index, full in answers:
        assert turns.may_receive(0)
        refused = 0 if turns.may_receive(3) else refused + 1
        assert refused < LOWER_SHARE
        turns.received(index, full=full)


def test_however_long_there_is_no_room_the_first_of_it_is_for_the_higher_queue():
    """Renders take longer than a full answer used to be believed; then both queues asked, and got half each."""
    clock = FakeClock()
    turns = Turns(2, clock)
    turns.received(0, full=True)
    for _ in range(120):
        clock.advance(0.25)
        assert turns.may_receive(0)  # its receiver looks for room all the while
        assert not turns.may_receive(1)


def test_the_lowers_share_is_not_lost_to_a_higher_queue_that_is_quicker():
    turns = Turns(2, FakeClock())
    for _ in range(LOWER_SHARE + 2):
        turns.received(0, full=True)
    assert turns.may_receive(1)
    turns.received(1, full=True)
    assert not turns.may_receive(1)
