"""`sd-scheduler local` as processes: at a terminal that is closed under it, and with a fleet."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from scheduler.cli.root import cli
from scheduler.cli.session import own_name
from scheduler.config import load
from scheduler.local.world import CONFIG, TO_EDIT, kept_sections

ROOT = Path(__file__).parents[2]
# The terminal becomes the controlling one, as a login makes it: only then is its end a SIGHUP.
AT_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from scheduler.main import main; main()"
LOCAL = [sys.executable, "-c", AT_TERMINAL, "local"]


def read_until(descriptor: int, words: bytes) -> None:
    seen = b""
    while words not in seen:
        chunk = os.read(descriptor, 65536)
        assert chunk, seen
        seen += chunk


EDITED = """\
[aws]
aws_region = nowhere-1
[inputs]
# mine
allow_hosts = 127.0.0.1:8009
[autoscaling]
enabled = true
[notify]
sns_topic_arn = arn:aws:sns:us-east-1:123456789012:ends
"""


def test_a_closed_terminal_ends_it_in_order_and_leaves_what_was_edited_and_nothing_running(tmp_path: Path) -> None:
    (tmp_path / ".local").mkdir()
    conf = tmp_path / ".local/conf.ini"
    conf.write_text(EDITED)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        LOCAL,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            read_until(ours, b"engine_ready")
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2
            os.close(ours)  # the kernel now hangs up
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert not (tmp_path / ".local/environment").exists()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert (len(gone), alive) == (len(children), [])
    settings = load(conf, {})  # that it ran by
    assert "[inputs]\n# mine\nallow_hosts = 127.0.0.1:8009\n" in conf.read_text()
    assert settings.inputs.allow_hosts == ("127.0.0.1:8009",)
    assert settings.notify.sns_topic_arn == "arn:aws:sns:us-east-1:123456789012:ends"
    assert (settings.aws.aws_region, settings.autoscaling.enabled) == ("us-east-1", False)


def test_a_fleet_that_local_keeps_is_seen_and_steered_until_it_is_told_to_stop(tmp_path: Path) -> None:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from scheduler.main import main; main()"]
    with subprocess.Popen(
        [*command, "local", "--fleet"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"wanted 0")
            children = psutil.Process(process.pid).children(recursive=True)
            show = [*command, "fleet", "show", "--local", "--json"]
            shown = json.loads(subprocess.run(show, cwd=tmp_path, env=environ, capture_output=True, check=True).stdout)
            assert (shown["target"], shown["leader"]) == (0, "local")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
            assert process.returncode == 130
        finally:
            process.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_a_local_without_a_fleet_says_how_to_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = "aws_region = us-east-1\nsqs_queue_url = sd-tasks\ndynamodb_table = sd-tasks\ns3_bucket = sd-images\n"
    folder = tmp_path / ".local"
    folder.mkdir()
    (folder / "environment").write_text("")
    (folder / "conf.ini").write_text(f"[aws]\n{places}")
    monkeypatch.chdir(tmp_path)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as one that runs holds it
        for words in (["fleet", "show"], ["fleet", "pause"], ["autoscale", "--once"]):
            done = CliRunner().invoke(cli, [*words, "--local"])
            assert done.exit_code == 1
            assert "has no fleet: start it with --fleet, or --demo-fleet" in done.output


def test_what_is_kept_of_a_configuration_is_kept_again_as_it_is() -> None:
    assert kept_sections(CONFIG + TO_EDIT) == kept_sections(kept_sections(CONFIG + TO_EDIT)) != ""
    assert kept_sections(CONFIG) == ""


def test_it_is_called_by_its_name_only_where_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / ".venv/bin"
    installed.mkdir(parents=True)
    (installed / "sd-scheduler").write_text("#!/bin/sh\n")
    (installed / "sd-scheduler").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(installed / "python"))
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.chdir(tmp_path)
    assert own_name() == ".venv/bin/sd-scheduler"
    monkeypatch.chdir(installed.parent)
    assert own_name() == "bin/sd-scheduler"
    monkeypatch.setenv("PATH", str(installed))
    assert own_name() == "sd-scheduler"
