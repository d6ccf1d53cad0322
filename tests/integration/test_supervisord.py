"""The files of deploy/ under a real supervisord, in a clone of their own whose Python stands in for the daemon."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

import psutil
import pytest
from supervisor.xmlrpc import SupervisorTransport

from scheduler.supervisor_program import program

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

# What `.venv/bin/python` is in the clone under test: the listener is real, the daemon behaves as the file `mood` says.
PYTHON = """\
#!/bin/sh
if [ "$1" = scheduler/main.py ]; then exec {python} daemon.py; fi
exec {python} "$@"
"""
DAEMON = """\
import os, signal, sys, time
def note(word):
    with open("diary", "a") as diary:
        diary.write(f"{word} {os.getpid()} {time.monotonic()}\\n")
def on_term(*_):
    note("term")
    if mood[0] == "serve":
        time.sleep(0.4)  # the running task
        note("finished")
        sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
mood = open("mood").read().split()
note("start")
print('{"event": "daemon_started"}', flush=True)
if mood[0] == "exit":
    time.sleep(float(mood[2]))
    print("conf.ini: that is wrong", file=sys.stderr)
    os._exit(int(mood[1]))
while True:
    time.sleep(60)
"""


class Clone:
    """A copy of deploy/ in a folder of its own, and the supervisord that was started in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.deploy = root / "deploy"
        self.environ = {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "HOME": str(root), "LC_ALL": "C.UTF-8"}
        shutil.copytree(REPOSITORY / "deploy", self.deploy, ignore=shutil.ignore_patterns("*.log*", "*.sock", "*.pid"))
        (root / "scheduler").symlink_to(REPOSITORY / "scheduler")
        (root / "daemon.py").write_text(DAEMON)
        python = root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON.format(python=sys.executable))
        python.chmod(0o755)
        self.mood("serve")

    def mood(self, text: str) -> None:
        (self.root / "mood").write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.deploy / "supervisord" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", line],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ctl(self, words: str) -> subprocess.CompletedProcess[str]:
        return self.shell(f"cd deploy && supervisorctl {words}")

    def start(self) -> None:
        started = self.shell("cd deploy && supervisord -c supervisord.conf")
        assert started.returncode == 0, started.stderr

    def info(self, name: str) -> dict[str, Any]:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.deploy}/run/supervisor.sock")
        try:
            return ServerProxy("http://127.0.0.1", transport).supervisor.getProcessInfo(name)
        finally:
            transport.close()

    def reach(self, name: str, state: str) -> dict[str, Any]:
        until(lambda: self.info(name)["statename"] == state, lambda: f"{self.info(name)}\n{self.logs()}")
        return self.info(name)

    def daemon(self, number: int) -> int:
        """The pid of the daemon that was started as the `number`th, once it runs and its signal handler stands."""
        until(lambda: len(self.diary("start")) >= number, self.logs)
        pid = self.reach("api-scheduler", "RUNNING")["pid"]
        assert pid == self.diary("start")[number - 1][0], "the daemon itself is supervised, not a shell before it"
        return int(pid)

    def diary(self, word: str) -> list[tuple[int, float]]:
        path = self.root / "diary"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(pid), float(at)) for what, pid, at in lines if what == word]

    def log(self, name: str) -> str:
        path = self.deploy / "log" / name
        return path.read_text() if path.exists() else ""

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted((self.deploy / "log").glob("*.log")))

    def supervisord_pid(self) -> int:
        return int((self.deploy / "run" / "supervisord.pid").read_text())

    def processes(self) -> list[psutil.Process]:
        """Every process whose working directory is in the clone or beside it: all that was started there."""
        home = self.root.parent.resolve()
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(home):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        for process in self.processes():
            process.kill()
        until(lambda: not self.processes(), lambda: f"still there: {self.processes()}")


def until(true: Callable[[], bool], otherwise: Callable[[], str], *, within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def clone() -> Iterator[Clone]:
    # Not tmp_path: the socket's path has to stay under 108 bytes. The space proves that the paths are quoted.
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as folder:
        made = Clone(Path(folder) / "a clone")
        yield made
        made.end()


def test_a_clone_is_up_in_two_commands(clone):
    status = clone.shell("cd deploy && supervisord -c supervisord.conf && supervisorctl status")
    assert [line.split()[0] for line in status.stdout.splitlines()] == ["api-scheduler", "flap-listener", "sd-webui"]
    clone.reach("flap-listener", "RUNNING")
    pid = clone.daemon(1)
    assert clone.info("sd-webui")["statename"] == "STOPPED", "started only where a person says so"

    assert clone.ctl("status api-scheduler").returncode == 0
    assert Path(psutil.Process(pid).cwd()) == clone.root.resolve(), "so that ./conf.ini is the clone's"
    assert (clone.deploy / "run" / "supervisor.sock").stat().st_mode & 0o777 == 0o700
    until(lambda: "daemon_started" in clone.log("api-scheduler.log"), clone.logs)


def test_stop_lets_the_running_task_finish_and_restart_makes_a_new_daemon(clone):
    clone.start()
    first = clone.daemon(1)

    assert clone.ctl("stop api-scheduler").stdout.strip() == "api-scheduler: stopped"
    assert [pid for pid, _ in clone.diary("term")] == [first], "one TERM, and only to the daemon"
    assert [pid for pid, _ in clone.diary("finished")] == [first]
    assert not alive(first)
    assert clone.ctl("status api-scheduler").returncode == 3

    assert clone.ctl("start api-scheduler").returncode == 0
    second = clone.daemon(2)
    assert clone.ctl("restart api-scheduler").returncode == 0
    third = clone.daemon(3)
    assert [pid for pid, _ in clone.diary("start")] == [first, second, third]
    assert [pid for pid, _ in clone.diary("finished")] == [first, second]


def test_a_daemon_that_ignores_term_is_killed_when_its_time_is_over_and_not_before(clone):
    clone.edit("api-scheduler.conf", "stopwaitsecs = 105", "stopwaitsecs = 3")
    clone.mood("ignore")
    clone.start()
    pid = clone.daemon(1)
    assert clone.ctl("stop api-scheduler").returncode == 0
    killed_at = time.monotonic()
    assert not alive(pid)
    [(_, term_at)] = clone.diary("term")
    assert killed_at - term_at >= 2.9
    assert "SIGKILL" in clone.log("supervisord.log")


def test_a_new_stop_time_is_taken_up_by_update_with_a_graceful_stop(clone):
    clone.start()
    first = clone.daemon(1)
    (clone.deploy / "supervisord" / "api-scheduler.conf").write_text(program(200))
    assert clone.ctl("update").returncode == 0
    assert clone.daemon(2) != first
    assert [pid for pid, _ in clone.diary("finished")] == [first]


def test_a_second_supervisord_in_the_same_clone_is_refused(clone):
    clone.start()
    first = clone.daemon(1)
    assert clone.shell("cd deploy && supervisord -c supervisord.conf").returncode != 0
    assert clone.info("api-scheduler")["pid"] == first


def stays(clone, state: str) -> bool:
    """Whether it is in that state for good: each question turns supervisord's loop once,
    where it would start it again.
    """
    clone.reach("api-scheduler", state)
    return {clone.info("api-scheduler")["statename"] for _ in range(5)} == {state}


def test_bad_configuration_is_shown_and_not_tried_again(clone):
    clone.mood("exit 2 1.6")
    clone.start()
    assert stays(clone, "EXITED")
    assert len(clone.diary("start")) == 1
    assert clone.ctl("status api-scheduler").returncode == 3
    assert "conf.ini: that is wrong" in clone.ctl("tail api-scheduler").stdout

    clone.mood("serve")
    assert clone.ctl("start api-scheduler").stdout.strip() == "api-scheduler: started"


def test_one_death_before_the_start_was_over_is_made_good(clone):
    clone.edit("api-scheduler.conf", "startsecs = 1", "startsecs = 4")
    clone.mood("exit 70 0")
    clone.start()
    until(lambda: bool(clone.diary("start")), clone.logs)
    clone.mood("serve")
    clone.reach("api-scheduler", "RUNNING")


def test_what_never_gets_through_its_start_is_fatal_until_a_person_starts_it(clone):
    clone.edit("api-scheduler.conf", "startsecs = 1", "startsecs = 20")
    clone.mood("exit 2 0")
    clone.start()
    assert stays(clone, "FATAL")
    assert len(clone.diary("start")) == 4
    assert clone.ctl("status api-scheduler").returncode == 3
    assert "conf.ini: that is wrong" in clone.ctl("tail api-scheduler").stdout

    clone.mood("serve")
    clone.shell("cd deploy && timeout 2 supervisorctl start api-scheduler")  # it answers after startsecs
    until(lambda: len(clone.diary("start")) == 5, clone.logs)


def test_a_dead_loop_or_a_kill_brings_a_new_daemon(clone):
    clone.mood("exit 70 1.6")
    clone.start()
    until(lambda: bool(clone.diary("start")), clone.logs)
    clone.mood("serve")
    second = clone.daemon(2)
    os.kill(second, signal.SIGKILL)
    assert clone.daemon(3) != second


def test_a_flapping_daemon_becomes_fatal_and_a_plain_start_brings_it_back(clone):
    clone.edit("flap-listener.conf", "--max-exits 5", "--max-exits 1")
    clone.mood("exit 70 1.6")
    clone.start()
    clone.reach("flap-listener", "RUNNING")
    clone.reach("api-scheduler", "FATAL")
    until(lambda: "program_flapping" in clone.log("flap-listener.log"), clone.logs)
    [line] = clone.log("flap-listener.log").splitlines()
    told = json.loads(line)
    assert (told["event"], told["program"], told["state"]) == ("program_flapping", "api-scheduler", "FATAL")
    assert "not started, it kept exiting: more than 1 exits within 600 s" in clone.log("api-scheduler.log")
    assert not list((clone.deploy / "log").glob("*.flapping"))
    assert len(clone.diary("start")) <= 3, "two exits, and the start that was under way when they were judged"
    assert clone.ctl("status api-scheduler").returncode == 3

    clone.mood("serve")
    assert clone.ctl("start api-scheduler").stdout.strip() == "api-scheduler: started"


def test_term_to_supervisord_ends_everything_gracefully_and_leaves_no_socket(clone):
    clone.start()
    daemon = clone.daemon(1)
    clone.reach("flap-listener", "RUNNING")
    os.kill(clone.supervisord_pid(), signal.SIGTERM)
    until(lambda: not clone.processes(), clone.logs)
    assert [pid for pid, _ in clone.diary("finished")] == [daemon]
    assert sorted(path.name for path in (clone.deploy / "run").iterdir()) == sorted(
        path.name for path in (REPOSITORY / "deploy" / "run").glob("*.sh")
    )
    assert clone.ctl("status").returncode == 4


def test_a_clone_that_was_not_installed_says_so(clone):
    clone.edit("api-scheduler.conf", "startretries = 3", "startretries = 1")
    shutil.rmtree(clone.root / ".venv")
    clone.start()
    clone.reach("api-scheduler", "FATAL")
    assert "poetry install" in clone.log("api-scheduler.log")


def test_a_missing_webui_is_fatal_with_the_reason(clone):
    clone.edit("sd-webui.conf", "startretries = 3", "startretries = 1")
    clone.start()
    assert "ERROR" in clone.ctl("start sd-webui").stdout
    clone.reach("sd-webui", "FATAL")
    assert "install the WebUI there, or set SD_WEBUI_DIR" in clone.log("sd-webui.log")


def test_the_webui_is_started_with_its_api_and_stopped_with_its_children(clone):
    webui = clone.root.parent / "stable-diffusion-webui"  # where it is looked for when nothing is said
    webui.mkdir()
    (webui / "webui.sh").write_text('echo "args: $* venv: ${VIRTUAL_ENV:-none}"\nsleep 600 &\necho "$!" >child\nwait\n')
    clone.environ["VIRTUAL_ENV"] = "/the/scheduler/environment"
    clone.start()
    assert clone.ctl("start sd-webui").returncode == 0
    expected = "args: -f --api venv: none" if os.getuid() == 0 else "args: --api venv: none"
    until(lambda: expected in clone.log("sd-webui.log"), clone.logs)
    until(lambda: (webui / "child").exists() and (webui / "child").read_text().endswith("\n"), clone.logs)
    child = int((webui / "child").read_text())
    assert alive(child)
    assert clone.ctl("stop sd-webui").returncode == 0
    until(lambda: not alive(child), lambda: "the engine's child still holds the GPU")


def test_a_clone_too_deep_for_a_socket_runs_through_a_link(clone):
    deep = clone.root / ("deep-" * 20)
    deep.mkdir()
    shutil.move(clone.deploy, deep / "deploy")
    for part in (".venv", "scheduler", "daemon.py", "mood"):
        shutil.move(clone.root / part, deep / part)
    refused = clone.shell(f"cd {deep.name}/deploy && supervisord -c supervisord.conf")
    assert refused.returncode != 0
    assert "AF_UNIX path too long" in refused.stdout + refused.stderr

    link = clone.root.parent / "sd"
    link.symlink_to(deep)
    assert clone.shell(f"supervisord -c {link}/deploy/supervisord.conf").returncode == 0
    status = clone.shell(f"supervisorctl -c {link}/deploy/supervisord.conf status flap-listener")
    assert status.stdout.startswith("flap-listener")


def test_every_program_keeps_and_rotates_its_log_beside_the_others():
    for path in (REPOSITORY / "deploy" / "supervisord").glob("*.conf"):
        parser = configparser.RawConfigParser()
        parser.read(path)
        [section] = (parser[name] for name in parser.sections())
        stream = "stderr" if path.stem == "flap-listener" else "stdout"
        assert section[f"{stream}_logfile"] == f"%(here)s/../log/{path.stem}.log"
        assert section[f"{stream}_logfile_maxbytes"].endswith("MB")
        assert int(section[f"{stream}_logfile_backups"]) >= 2
