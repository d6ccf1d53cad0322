"""SIGTERM while the daemon still loads its modules: a real process, held up in the midst of an import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BY_PATH = [str(ROOT / "scheduler" / "main.py")]
BY_NAME = ["-c", "from scheduler.main import main; main()", "run"]
OTHER_COMMAND = ["-c", "from scheduler.main import main; main()", "doctor"]
HELD_UP = """\
print("importing", flush=True)
try:
    input()
except BaseException:  # as some packages have it around their imports
    print("caught", flush=True)
    input()
"""


def told_to_stop_while_importing(module: str, program: list[str], folder: Path) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a program that gets SIGTERM while it imports `module`."""
    (folder / f"{module}.py").write_text(HELD_UP, encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("program", [BY_PATH, BY_NAME], ids=["by path", "by name"])
@pytest.mark.parametrize("module", ["click", "boto3"])
def test_the_daemon_ends_with_0_and_a_word(module: str, program: list[str], tmp_path: Path) -> None:
    code, stdout, stderr = told_to_stop_while_importing(module, program, tmp_path)
    assert (code, stdout) == (0, "")
    assert stderr == "told to stop before the start was over: nothing was held\n"


def test_another_command_is_ended_by_the_signal_as_any_program(tmp_path: Path) -> None:
    code, _, stderr = told_to_stop_while_importing("boto3", OTHER_COMMAND, tmp_path)
    assert (code, stderr) == (-signal.SIGTERM, "")
