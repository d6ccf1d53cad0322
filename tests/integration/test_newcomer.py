"""The mistakes of somebody who is new here, each answered in words and with the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aws_servers import NOWHERE, aws_environ

ROOT = Path(__file__).parents[2]
CONF = "[aws]\naws_region = us-east-1\nsqs_queue_url = q\ndynamodb_table = tasks\ns3_bucket = some-pictures\n"


def told(tmp_path: Path, *words: str, endpoint: str = NOWHERE) -> subprocess.CompletedProcess[str]:
    (tmp_path / "conf.ini").write_text(CONF)
    environ = {**aws_environ(endpoint), "PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": endpoint}
    return subprocess.run(
        [sys.executable, "-c", "from scheduler.main import main; main()", *words],
        env=environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_doctor_tells_everything_even_when_aws_is_out_of_reach(tmp_path: Path) -> None:
    done = told(tmp_path, "doctor", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    names = {check["check"].split()[0] for check in json.loads(done.stdout)["checks"]}
    assert {"credentials", "bucket", "engine", "disk"} <= names


@pytest.mark.parametrize("words", [("run",), ("doctor",), ("task", "show", "x")])
def test_an_endpoint_that_is_no_address_is_wrong_configuration(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = told(tmp_path, *words, endpoint="127.0.0.1:9")
    assert done.returncode == 2
    assert "AWS_ENDPOINT_URL" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_options_that_a_file_would_overrule_are_refused(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text("{}")
    done = told(tmp_path, "task", "submit", "--file", "task.json", "--id", "mine")
    assert done.returncode == 2
    assert "go with --prompt" in done.stderr


def test_without_a_local_mode_the_folder_is_named(tmp_path: Path) -> None:
    done = told(tmp_path, "task", "show", "--local", "x")
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr
