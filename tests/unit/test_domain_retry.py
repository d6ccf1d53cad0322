"""What an error costs a task: every kind of error against every run it may strike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.errors import (
    AccessDenied,
    BadResult,
    ConfigError,
    Counts,
    DeadlineExceeded,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    LeaseLost,
    OutOfMemory,
    Rejected,
    Transient,
    Unavailable,
)
from scheduler.domain.retry import (
    FIRST_BACKOFF_S,
    FIRST_LACKING_S,
    MAX_BACKOFF_S,
    MAX_TRIES,
    MIN_TRYING_S,
    Fail,
    GiveBack,
    backoff_s,
    decide,
)
from scheduler.domain.task import Claim, Failure

NOW = 1_900_000_000.0
MAX_RUNS = 3


def claim(runs: int = 1, tries: int = 0, first_try_at_s: float | None = None) -> Claim:
    return Claim(task_id="t", owner="o", attempt=9, run_no=1, runs=runs, tries=tries, first_try_at_s=first_try_at_s)


def after(error, **facts):
    return decide(error, claim(**facts), max_runs=MAX_RUNS, now=NOW)


@pytest.mark.parametrize("runs", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (
            Rejected("steps is 'many'", field="payload.steps"),
            Failure(kind="rejected", message="steps is 'many'", field="payload.steps"),
        ),
        (
            Rejected("the engine refused", engine="ValueError"),
            Failure(kind="rejected", message="the engine refused", engine="ValueError"),
        ),
        (DeadlineExceeded("over 600 s"), Failure(kind="deadline", message="over 600 s")),
        (
            OutOfMemory("even at batch size 1", engine="CUDA out of memory"),
            Failure(kind="out-of-memory", message="even at batch size 1", engine="CUDA out of memory"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_retry_can_mend_fails_at_the_first_run_as_at_the_last(error, failure, runs):
    assert after(error, runs=runs) == Fail(failure)


@pytest.mark.parametrize(("runs", "delay_s"), [(1, FIRST_BACKOFF_S), (2, 2 * FIRST_BACKOFF_S), (3, None), (4, None)])
@pytest.mark.parametrize(
    "error",
    [
        EngineLost("gone", engine="reset"),
        EngineHung("no answer", engine="reset"),
        BadResult("another model", engine="reset"),
        Fatal("illegal memory access", engine="reset"),
        Transient("it ran", counts=Counts.RUN, engine="reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_run_that_was_spent_comes_back_until_the_last_which_fails_it(error, runs, delay_s):
    decision = after(error, runs=runs)
    if delay_s is not None:
        assert decision == GiveBack(delay_s, Counts.RUN)
    else:
        said = f"{error.message} (run {runs} of 3, the last)"
        assert decision == Fail(Failure(kind=error.kind, message=said, engine="reset"))


@pytest.mark.parametrize("runs", [1, 2, 3, 50])
@pytest.mark.parametrize(
    "error",
    [EngineDown("refused"), Unavailable("throttled"), AccessDenied("no role"), Transient("the host's fault")],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_the_world_never_fails_a_task(error, runs):
    assert after(error, runs=runs) == GiveBack(backoff_s(runs), Counts.NOTHING)


@pytest.mark.parametrize(
    ("tries", "since_s_ago", "fails"),
    [
        (0, None, False),
        (MAX_TRIES - 2, 10 * MIN_TRYING_S, False),  # long, but not often enough
        (MAX_TRIES - 1, MIN_TRYING_S - 1, False),  # often, but all within a short trouble
        (20, MIN_TRYING_S - 1, False),
        (MAX_TRIES - 1, None, False),  # often, but since nobody knows when
        (MAX_TRIES - 1, MIN_TRYING_S, True),
        (20, 10 * MIN_TRYING_S, True),
    ],
)
@pytest.mark.parametrize("runs", [1, 9])
def test_an_input_that_cannot_be_had_fails_after_five_tries_over_ten_minutes(tries, since_s_ago, fails, runs):
    error = Transient("no such host", counts=Counts.TRY)
    since = None if since_s_ago is None else NOW - since_s_ago
    decision = after(error, runs=runs, tries=tries, first_try_at_s=since)
    if fails:
        assert decision == Fail(Failure(kind="transient", message=f"no such host (try {tries + 1})"))
    else:
        assert decision == GiveBack(backoff_s(tries + 1, FIRST_LACKING_S), Counts.TRY)


@pytest.mark.parametrize("error", [Interrupted(), LeaseLost("x"), ConfigError(["x"])])
def test_what_is_no_failure_of_a_task_is_not_decided(error):
    with pytest.raises(type(error)):
        after(error)


@given(
    st.sampled_from(
        [
            Rejected("x"),
            OutOfMemory("x"),
            Fatal("x"),
            *(Transient("x", counts=counts) for counts in Counts),
            EngineLost("x"),
        ]
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.none() | st.floats(0, NOW),
    st.integers(1, 10),
)
def test_no_decision_waits_longer_than_five_minutes_or_not_at_all(error, runs, tries, since, max_runs):
    decision = decide(error, claim(runs, tries, since), max_runs=max_runs, now=NOW)
    if isinstance(decision, GiveBack):
        assert FIRST_BACKOFF_S <= decision.delay_s <= MAX_BACKOFF_S == 300.0
        assert not (decision.counts is Counts.RUN and runs >= max_runs)


def test_the_back_off_doubles():
    assert [backoff_s(times) for times in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert [backoff_s(times, 30.0) for times in range(1, 6)] == [30, 60, 120, 240, 300]


@given(st.integers(-5, 10**9), st.floats(0.1, 1000))
def test_the_back_off_is_bounded_and_never_falls(times, first_s):
    assert min(first_s, MAX_BACKOFF_S) <= backoff_s(times, first_s) <= backoff_s(times + 1, first_s) <= MAX_BACKOFF_S
