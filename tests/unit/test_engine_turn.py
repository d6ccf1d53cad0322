"""The one place at an engine: which run is told to end, and what a run that was told to end becomes."""

import pytest

from scheduler.domain.errors import (
    EngineBusy,
    EngineDown,
    EngineHung,
    EngineLost,
    Fatal,
    Interrupted,
    OutOfMemory,
    Rejected,
    SchedulerError,
)
from scheduler.domain.ports import PreparedRun
from scheduler.domain.task import Task, TaskType
from scheduler.engines.turn import Slot, prove

TASK = Task(task_id="t", task_type=TaskType.TXT2IMG, payload={}, fingerprint="")


def run():
    return PreparedRun(task=TASK, path="/", body=b"", image_count=1, checkpoint=None, sampler=None, estimate_bytes=1)


class Wire:
    """Where interrupts go."""

    def __init__(self, *, hears: bool = True) -> None:
        self.sent = 0
        self._hears = hears

    def send(self) -> bool:
        self.sent += 1
        return self._hears


def test_a_busy_engine_has_not_failed_its_proof():
    class Busy:
        def prepare(self, _task, *, seed_key):
            return run()

        def generate(self, _run, *, deadline_s):
            raise EngineBusy("the engine was at other work")

    with pytest.raises(EngineBusy):
        prove(Busy(), TASK, deadline_s=1.0)


def test_only_the_run_that_is_there_is_told_to_end():
    slot, wire, mine, other = Slot(), Wire(), run(), run()
    assert slot.interrupt(mine, wire.send) is False
    with slot.take(mine) as turn:
        slot.begin(turn)
        assert slot.interrupt(other, wire.send) is False
        assert not turn.is_interrupted
        assert slot.now is turn
    assert slot.now is None
    assert slot.interrupt(mine, wire.send) is False
    assert wire.sent == 0


def outcome(slot, run, does):
    """The error with which a run ended."""
    with pytest.raises(SchedulerError) as caught:
        lived(slot, run, does)
    assert slot.now is None
    return caught.value


def lived(slot, run, does):
    with slot.take(run) as turn:
        does(turn)


def test_a_run_that_was_not_posted_never_is():
    slot, wire, mine, posted = Slot(), Wire(), run(), []

    def does(turn):
        assert slot.interrupt(mine, wire.send) is True
        slot.begin(turn)
        posted.append(turn)

    assert type(outcome(slot, mine, does)) is Interrupted
    assert (posted, wire.sent) == ([], 0)


@pytest.mark.parametrize("hears", [True, False])
def test_what_an_interrupted_run_brings_is_no_result(hears):
    slot, wire, mine = Slot(), Wire(hears=hears), run()

    def does(turn):
        slot.begin(turn)
        assert slot.interrupt(mine, wire.send) is hears

    assert type(outcome(slot, mine, does)) is Interrupted
    assert wire.sent == 1


@pytest.mark.parametrize("error", [EngineLost("x"), Rejected("x"), OutOfMemory("x"), Fatal("x")])
@pytest.mark.parametrize("is_interrupted", [True, False])
def test_how_an_interrupted_run_fails_says_nothing(error, is_interrupted):
    slot, mine = Slot(), run()

    def does(_turn):
        if is_interrupted:
            slot.interrupt(mine, Wire().send)
        raise error

    assert type(outcome(slot, mine, does)) is (Interrupted if is_interrupted else type(error))


@pytest.mark.parametrize("error", [EngineDown("x"), EngineHung("x")])
def test_an_engine_that_is_gone_or_hangs_is_told_all_the_same(error):
    slot, mine = Slot(), run()

    def does(_turn):
        slot.interrupt(mine, Wire().send)
        raise error

    assert outcome(slot, mine, does) is error
    lived(slot, mine, slot.begin)
