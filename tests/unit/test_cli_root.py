"""How our own errors and Ctrl-C end a command: a line for a person, and the exit code."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from scheduler.cli import root, task
from scheduler.domain.errors import AccessDenied, ConfigError, Unavailable


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Unavailable("no answer"), 1, "error: no answer\n"),
        (ConfigError(["one", "two"]), 2, "one\ntwo\n"),
        (AccessDenied("not allowed"), 3, "error: not allowed\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
    ids=["unavailable", "configuration", "denied", "interrupted"],
)
def test_what_ends_a_command_decides_its_exit_code(monkeypatch, error, code, said):
    def fails(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(task, "open_session", fails)
    done = CliRunner().invoke(root.cli, ["task", "show", "any"])
    assert (done.exit_code, done.stderr, done.stdout) == (code, said, "")
