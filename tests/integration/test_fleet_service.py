"""The local fleet's service with real processes: what they are given, how they end, and that none outlives it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from scheduler.autoscale.fleets.local import LocalFleet
from scheduler.autoscale.fleets.port import FleetView, Life
from scheduler.local.fleet_workers import AFTER_DEATH_S, SHOWN_ENDED_S, STOP_GRACE_S, Recipe, Workers

SLEEPER = ("sh", "-c", "echo up; exec sleep 600")
DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done")
T = TypeVar("T")


def until(ask: Callable[[], T], *, what: str) -> T:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        if found := ask():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never came: {what}")


def lives(view: FleetView) -> list[str]:
    return sorted(member.life.value for member in view.members)


@contextlib.contextmanager
def service(folder: Path, *options: str, command: tuple[str, ...] = SLEEPER) -> Iterator[subprocess.Popen[bytes]]:
    program = [sys.executable, "-m", "scheduler.local.fleet_service", f"--folder={folder}", *options, "--", *command]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def fleet_of(process: subprocess.Popen[bytes]) -> LocalFleet:
    assert process.stdout is not None
    return LocalFleet(process.stdout.readline().decode().removeprefix("listening on ").strip())


def outputs(folder: Path) -> dict[str, str]:
    return {each.parent.name: each.read_text() for each in folder.glob("*/output")}


def test_each_worker_has_its_own_id_environment_and_folder(tmp_path: Path) -> None:
    script = 'echo "$1 $NAME $PLAIN $PWD"; exec sleep 600'
    options = ("--env", "NAME=is-{id}", "--env", "PLAIN=a=b")
    with service(tmp_path, *options, command=("sh", "-c", script, "sh", "{id}")) as process:
        fleet = fleet_of(process)
        fleet.set_target(2)
        until(lambda: len(outputs(tmp_path)) == 2 and all(outputs(tmp_path).values()), what="two that told")
        ids = {member.instance_id for member in fleet.describe().members}
        assert outputs(tmp_path) == {one: f"{one} is-{one} a=b {tmp_path / one}\n" for one in ids}


def test_worker_is_pending_until_its_boot_is_over(tmp_path: Path) -> None:
    recipe = Recipe(command=SLEEPER, folder=tmp_path)
    workers = Workers(recipe, boot_s=30)
    try:
        workers.set_target(1)
        workers.tick(now=100)
        workers.tick(now=129)
        assert lives(workers.view()) == ["pending"]
        assert outputs(tmp_path) == {}
        workers.tick(now=130)
        assert lives(workers.view()) == ["running"]
    finally:
        workers.close()


def test_worker_that_is_ended_before_it_started_never_starts(tmp_path: Path) -> None:
    workers = Workers(Recipe(command=SLEEPER, folder=tmp_path), boot_s=30)
    workers.set_target(1)
    workers.tick(now=100)
    workers.set_target(0)
    workers.end([member.instance_id for member in workers.view().members], now=101)
    workers.tick(now=200)
    assert lives(workers.view()) == ["ending"]
    assert outputs(tmp_path) == {}
    workers.tick(now=200 + SHOWN_ENDED_S)
    assert workers.view().members == ()


def test_worker_that_does_not_hear_is_killed_after_its_grace(tmp_path: Path) -> None:
    workers = Workers(Recipe(command=DEAF, folder=tmp_path), boot_s=0)
    workers.set_target(1)
    workers.tick(now=0)
    workers.tick(now=0)
    (member,) = workers.view().members
    until(lambda: "up" in outputs(tmp_path).get(member.instance_id, ""), what="its trap")
    workers.set_target(0)
    workers.end([member.instance_id], now=1)
    workers.tick(now=1 + STOP_GRACE_S)
    (process,) = children_in(tmp_path)
    assert process.is_running()
    workers.tick(now=2 + STOP_GRACE_S)
    until(lambda: children_in(tmp_path) == [], what="its end")
    workers.close()


def test_all_are_killed_that_do_not_hear_that_the_service_ends(tmp_path: Path) -> None:
    workers = Workers(Recipe(command=DEAF, folder=tmp_path), boot_s=0)
    workers.set_target(2)
    workers.tick(now=0)
    workers.tick(now=0)
    until(lambda: list(outputs(tmp_path).values()) == ["up\n"] * 2, what="their traps")
    workers.close(grace_s=0.1)
    assert children_in(tmp_path) == []


def test_worker_that_dies_is_told_of_and_replaced_but_not_at_once(tmp_path: Path) -> None:
    workers = Workers(Recipe(command=("sh", "-c", "exit 3"), folder=tmp_path), boot_s=0)
    workers.set_target(1)
    workers.tick(now=0)

    def has_died() -> bool:
        workers.tick(now=0)
        return lives(workers.view()) == ["ending"]

    until(has_died, what="its end")
    (dead,) = workers.view().members
    assert workers.view().trouble == (
        f"{dead.instance_id} ended by itself with 3; see {tmp_path / dead.instance_id / 'output'}"
    )
    workers.tick(now=AFTER_DEATH_S - 0.1)
    assert lives(workers.view()) == ["ending"]
    workers.tick(now=AFTER_DEATH_S)
    assert lives(workers.view()) == ["ending", "pending"]
    workers.set_target(0)
    workers.end([member.instance_id for member in workers.view().members], now=10)
    workers.tick(now=AFTER_DEATH_S + 2 * SHOWN_ENDED_S)
    assert workers.view().trouble == "", "that was long ago"


def test_command_that_is_none_is_told_as_a_death(tmp_path: Path) -> None:
    with service(tmp_path, command=("/no/such/program",)) as process:
        fleet = fleet_of(process)
        fleet.set_target(1)
        trouble = until(lambda: fleet.describe().trouble, what="trouble")
        (first,) = [one for one in outputs(tmp_path) if one in trouble]
        assert "No such file" in outputs(tmp_path)[first]


@pytest.mark.parametrize("how", ["terminated", "parent gone", "killed"])
def test_no_worker_outlives_the_service(tmp_path: Path, how: str) -> None:
    if how == "killed" and sys.platform != "linux":
        pytest.skip("only Linux's kernel ends orphans")
    with service(tmp_path) as process:
        fleet = fleet_of(process)
        fleet.set_target(3)
        until(lambda: lives(fleet.describe()) == ["running"] * 3, what="three running")
        workers = until(lambda: len(children_in(tmp_path)) == 3 and children_in(tmp_path), what="three processes")
        if how == "parent gone":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
        assert process.wait(20) == (-signal.SIGKILL if how == "killed" else 0)
        gone, left = psutil.wait_procs(workers, timeout=20)
        assert (len(gone), left) == (3, [])


def children_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a worker's folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_ours = process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(f"{folder}{os.sep}")
            if is_ours and process.cmdline() != ["sleep", "0.05"]:
                found.append(process)
    return found


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", "", 404),
        ("PUT", "/fleet", "{}", 404),
        ("POST", "/target", "{}", 404),
        ("PUT", "/target", "", 400),
        ("PUT", "/target", "[1]", 400),
        ("POST", "/end", "{}", 400),
        ("POST", "/end", '{"instance_ids": 1}', 400),
    ],
)
def test_what_is_no_order_is_refused(tmp_path: Path, method: str, path: str, body: str, status: int) -> None:
    with service(tmp_path) as process:
        fleet = fleet_of(process)
        answer = asked(fleet, method, path, body)
        assert answer[0] == status
        assert "error" in answer[1]
        assert fleet.describe().target == 0


def asked(fleet: LocalFleet, method: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(fleet.name.rpartition("/")[2], timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_life_of_a_view_survives_the_wire(tmp_path: Path) -> None:
    with service(tmp_path, "--boot-seconds=600") as process:
        fleet = fleet_of(process)
        fleet.set_target(1)
        (member,) = until(lambda: fleet.describe().members, what="one launched")
        assert member.life is Life.PENDING
        assert abs(member.launched_s - time.time()) < 60
