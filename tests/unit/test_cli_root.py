"""How a command that cannot do what it was asked ends: a line for a person or an object for a machine, and a code."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner, Result

from scheduler.cli import root, task_show
from scheduler.cli.failure import Failure, failure_of
from scheduler.domain.errors import AccessDenied, ConfigError, Fatal, Rejected, Unavailable
from scheduler.observe import advice

ERRORS = [
    (Unavailable("no answer"), 1, "error: no answer\n", "aws-unavailable"),
    (Fatal("broken"), 1, "error: broken\n", "failed"),
    (ConfigError(["one", "two"]), 2, "one\ntwo\n2 problems\n", "configuration"),
    (AccessDenied("not allowed"), 3, f"error: not allowed\n  -> {advice.DENIED}\n", "aws-denied"),
    (Rejected("too wide", field="payload.width"), 3, "refused: too wide (field payload.width)\n", "rejected"),
    (KeyboardInterrupt(), 130, "interrupted\n", "interrupted"),
    (Failure("gone", kind="missing", task_id="t"), 1, "error: gone\n", "missing"),
]
NAMES = ["unavailable", "fatal", "configuration", "denied", "rejected", "interrupted", "failure"]


def show(monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str) -> Result:
    def fails(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(task_show, "load_settings", fails)
    return CliRunner().invoke(root.cli, ["task", "show", "any", *words])


@pytest.mark.parametrize(("error", "code", "said", "_kind"), ERRORS, ids=NAMES)
def test_what_ends_a_command_decides_its_exit_code(monkeypatch, error, code, said, _kind):
    done = show(monkeypatch, error)
    assert (done.exit_code, done.stderr, done.stdout) == (code, said, "")


@pytest.mark.parametrize(("error", "code", "said", "kind"), ERRORS, ids=NAMES)
def test_with_json_the_same_is_one_object_on_standard_output(monkeypatch, error, code, said, kind):
    done = show(monkeypatch, error, "--json")
    assert (done.exit_code, done.stderr) == (code, "")
    told = json.loads(done.stdout)
    assert (told["ok"], told["kind"]) == (False, kind)
    assert told["error"] in said or kind == "configuration"
    assert None not in told.values()


def test_the_object_holds_what_a_machine_asks_for():
    assert json.loads(failure_of(ConfigError(["one"])).json())["problems"] == ["one"]
    assert json.loads(failure_of(Rejected("x", field="payload.steps")).json())["field"] == "payload.steps"
    assert json.loads(failure_of(AccessDenied("x")).json())["advice"] == advice.DENIED
    assert json.loads(Failure("x", kind="y", task_id="t").json())["task_id"] == "t"


@pytest.mark.parametrize(
    "words", [["task", "show"], ["task", "frob"], ["frob"], ["task", "show", "x", "--frob"]], ids=" ".join
)
def test_wrong_use_is_told_in_both_ways(words):
    plain = CliRunner().invoke(root.cli, words)
    assert (plain.exit_code, plain.stdout) == (2, "")
    assert "Usage: " in plain.stderr
    done = CliRunner().invoke(root.cli, [*words, "--json"])
    assert (done.exit_code, done.stderr) == (2, "")
    told = json.loads(done.stdout)
    assert told["kind"] == "usage"
    assert told["advice"].endswith("--help")


@pytest.mark.parametrize(
    "spelled", [["-c", "some.ini"], ["--config", "some.ini"], ["--config=some.ini"], ["-csome.ini"]]
)
@pytest.mark.parametrize("command", [["config", "check"], ["task", "show", "x"], ["doctor", "--print-policy"], ["run"]])
def test_a_configuration_before_the_command_is_read_as_if_behind_it(monkeypatch, tmp_path, spelled, command):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(root.cli, [*spelled, *command])
    assert done.exit_code == 2
    assert done.stderr.startswith("some.ini: no such file")


def test_the_nearer_configuration_goes_before_the_farther(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(root.cli, ["-c", "far.ini", "config", "check", "-c", "near.ini"])
    assert done.stderr.startswith("near.ini: ")


@pytest.mark.parametrize("words", [["-c"], ["-c", "x.ini"], ["-c", "x.ini", "frob"], ["-c", "x.ini", "task"]])
def test_a_configuration_without_a_command_is_wrong_use(words):
    done = CliRunner().invoke(root.cli, words)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr


@pytest.mark.parametrize("command", [["run"], ["task", "show", "x"], ["task", "submit", "--prompt", "x"]])
@pytest.mark.parametrize("first", [True, False], ids=["before", "behind"])
def test_local_mode_with_another_configuration_is_refused_rather_than_left_unread(command, first):
    given = ["-c", "some.ini"]
    done = CliRunner().invoke(root.cli, [*given, *command, "--local"] if first else [*command, "--local", *given])
    assert done.exit_code == 2
    assert "would not read some.ini" in done.stderr


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('asking: Could not connect to the endpoint URL: "http://127.0.0.1:9/"', advice.UNREACHABLE),
        ('asking: Connect timeout on endpoint URL: "https://sqs.eu-west-7.amazonaws.com/"', advice.UNREACHABLE),
        ("asking: Failed to connect to proxy URL: http://p", advice.UNREACHABLE),
        ("An error occurred (AWS.SimpleQueueService.NonExistentQueue) when calling", advice.MISSING),
        ("An error occurred (ResourceNotFoundException) when calling the DescribeTable operation", advice.MISSING),
        ("An error occurred (ThrottlingException) when calling", None),
    ],
)
def test_what_keeps_aws_from_answering_decides_what_to_check(said, expected):
    assert advice.advice_for(Unavailable(said)) == expected


def test_other_errors_have_no_advice_of_awss():
    assert advice.advice_for(Fatal("Could not connect to the endpoint URL")) is None
    assert failure_of(click.ClickException("x")).advice is None
