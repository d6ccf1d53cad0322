"""Who takes part: by name, by what [autoscaling] says, and with the habits under which each rival is published."""

from __future__ import annotations

import pytest

from scheduler.autoscale.policies import choice
from scheduler.autoscale.policies.backlog import Backlog
from scheduler.autoscale.snapshot import Policy
from scheduler.config_sections import Autoscaling
from scheduler.domain.errors import ConfigError
from scheduler.simulate.contenders import LATE_WORTHS_S, PRESETS, contender, everybody, sweep
from scheduler.simulate.model import Arrival, Manner, Terms
from scheduler.simulate.rivals import Keda, Static

TERMS = Terms(max_capacity=7)


def of(**keys: object) -> Policy:
    return choice.policy(Autoscaling.model_validate(keys))


def in_text(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(f"{waiting}:{added}" for waiting, added in value) if isinstance(value, tuple) else str(value)


def test_a_policy_is_what_its_settings_make_it():
    settings = {"target_wait_s": 15.0, "scale_out_threshold": 3, "preset": "prompt"}
    assert contender("backlog", TERMS, settings).policy == of(policy="backlog", target_wait_s=15.0, preset="prompt")
    assert contender("threshold", TERMS, settings).policy == of(policy="threshold", scale_out_threshold=3)


def test_a_preset_named_with_the_policy_goes_before_the_settings():
    named = contender("backlog:thrifty", TERMS, {"preset": "prompt", "target_wait_s": 15.0})
    assert named.policy == of(policy="backlog", target_wait_s=15.0, preset="thrifty")


def test_a_preset_named_with_the_policy_takes_a_worth_back_and_says_so():
    named = contender("backlog:thrifty", TERMS, {"late_worth_s": 700.0})
    assert named.policy == of(policy="backlog", preset="thrifty")
    assert named.keys is not None
    assert named.keys["late_worth_s"] is None
    assert contender("backlog", TERMS, {"late_worth_s": 700.0}).policy == of(policy="backlog", late_worth_s=700.0)


def test_what_to_write_holds_the_keys_of_that_policy_and_the_bounds():
    named = contender("backlog:prompt", TERMS, {"target_wait_s": 15.0, "cooldown_s": 10.0})
    assert named.keys == {
        "policy": "backlog",
        "preset": "prompt",
        "target_wait_s": 15.0,
        "min_capacity": 0,
        "max_capacity": 7,
    }


@pytest.mark.parametrize("one", [*everybody(TERMS, {}), *sweep(TERMS, {})], ids=lambda one: one.name)
def test_everything_of_ours_that_is_compared_can_be_written_into_conf_ini(one):
    if one.keys is None:
        return
    written = Autoscaling.model_validate({key: in_text(value) for key, value in one.keys.items()})
    if not isinstance(one.policy, Static):
        assert choice.policy(written) == one.policy
    assert (written.min_capacity, written.max_capacity) == (one.terms.min_capacity, one.terms.max_capacity)


@pytest.mark.parametrize("name", ["backlog:lavish", "threshold:prompt", "static-", "static-x", "static-0", "keda", ""])
def test_a_name_that_nobody_has_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError) as caught:
        contender(name, TERMS, {})
    assert repr(name) in str(caught.value)
    assert "backlog:balanced" in str(caught.value)
    assert "static-N" in str(caught.value)
    assert "static-4" not in str(caught.value)


def test_rivals_take_workers_away_as_published_and_see_what_cloudwatch_shows():
    found = {one.name: one for one in everybody(TERMS, {})}
    assert found["keda-1"].terms.manner is Manner.BLIND
    assert found["target-tracking"].terms.cloudwatch_s == 60.0
    assert found["buildkite"].terms.idle_exit_s == 600.0
    assert {found[name].terms.manner for name in (*PRESETS, "threshold", "step", "idle-stop")} == {Manner.CONSENT}
    assert found["keda-1"].keys is None


def test_a_static_fleet_of_any_size_may_be_named():
    named = contender("static-5", TERMS, {})
    assert (named.name, named.policy) == ("static-5", Static(capacity=5))
    assert (named.terms.min_capacity, named.terms.max_capacity) == (5, 5)
    assert contender("static-12", TERMS, {}).policy == Static(capacity=7), "no more than are allowed"


def test_a_sweep_turns_each_knob_and_keeps_the_families_together():
    found = sweep(TERMS, {})
    assert len({one.name for one in found}) == len(found)
    lines = {family: [one for one in found if one.family == family] for family in {one.family for one in found}}
    assert set(PRESETS) < set(lines)
    worths = [one.policy.late_worth_s for one in lines["backlog, late_worth_s"] if isinstance(one.policy, Backlog)]
    assert (min(worths), max(worths), len(worths)) == (5, 1_000_000, len(LATE_WORTHS_S))
    assert {one.policy.queue_length for one in lines["keda"] if isinstance(one.policy, Keda)} == {1, 2, 5}
    assert all(len(lines[family]) >= 3 for family in (*PRESETS, "buildkite", "keda-1-gentle", "target-tracking"))


def test_what_came_of_it_has_the_contenders_name():
    assert contender("backlog:balanced", TERMS, {}).run([Arrival(0.0, 20.0)]).policy == "backlog:balanced"
