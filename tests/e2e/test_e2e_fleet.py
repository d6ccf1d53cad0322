"""A fleet of real processes: three daemons with their loops, leaders killed, instances taken away, and nothing lost."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import waiting
from aws_servers import REGION
from world import World

from scheduler.autoscale.fleets.local import LocalFleet
from scheduler.autoscale.fleets.port import Life
from scheduler.autoscale.protocol import State
from scheduler.autoscale.state_table import DynamoFleetState
from scheduler.aws.addresses import Account
from scheduler.aws.make_state_table import make_state_table
from scheduler.aws.making import Making
from scheduler.aws.operator_clients import build as operator_clients
from scheduler.config import load
from scheduler.domain.clock import SystemClock
from scheduler.fleet import capacity_keeper

QUICK = (
    "from scheduler.autoscale import leader, member; "
    "leader.LEASE_S, leader.TICK_S, leader.BUSY_TICK_S = 6, 1.5, 0.5; "
    "member.BEAT_S, member.LEAVING_BEAT_S = 1, 0.5; "
    "from scheduler.local.worker import main; main()"
)
"""A worker with a lease, ticks and heartbeats that a test can wait for; they are no settings."""

until = partial(waiting.until, every_s=0.3)
"""A look at the fleet asks its service and its table."""


class Fleet:
    """The service, its workers' processes, and the fleet's table."""

    def __init__(self, world: World, address: str, conf: Path) -> None:
        self.conf = conf
        self.address = address
        self.port = LocalFleet(address)
        self.state = DynamoFleetState(
            world.cloud.clients.dynamodb, f"{world.table}-fleet", f"local/{address}", clock=SystemClock()
        )

    def serving(self) -> list[str]:
        workers = {worker.instance_id: worker for worker in self.state.registry().workers}
        alive = [member.instance_id for member in self.port.describe().members if member.life is Life.RUNNING]
        return [
            one for one in alive
            if one in workers and workers[one].state is State.ACTIVE and workers[one].report.ready_s is not None
        ]  # fmt: skip

    def leader(self) -> str | None:
        """Return who leads, if it is one of the workers that live."""
        book = self.state.book()
        return book.leader if book and book.leader in self.serving() else None

    def kill(self, instance_id: str) -> None:
        """SIGKILL to a worker's daemon."""
        for process in psutil.process_iter(["cmdline"]):
            if QUICK not in (process.info["cmdline"] or []):
                continue
            if process.environ().get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").endswith(f"/{instance_id}"):
                process.kill()
                return
        raise AssertionError(f"no process of {instance_id}")

    def interrupt(self, instance_id: str, *, in_s: float) -> None:
        url = urlsplit(self.address)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
        connection.request("POST", "/interrupt", json.dumps({"instance_id": instance_id, "in_s": in_s}))
        assert connection.getresponse().status == 200
        connection.close()

    def outputs(self) -> str:
        """Return the last words of all workers, for a failed test to show."""
        folders = sorted((self.conf.parent / "workers").glob("*/output"))
        return "\n".join(f"{path.parent.name}:\n{path.read_text()[-1500:]}" for path in folders)


@pytest.fixture
def fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name, value in world.cloud.environ.items():
        monkeypatch.setenv(name, value)
    conf = world.conf("http://127.0.0.1:1", stop_grace_s=10)
    making = Making(clients=operator_clients(REGION), account=Account(number="000000000000", region=REGION))
    list(make_state_table(making, f"{world.table}-fleet"))
    worker = [sys.executable, "-c", QUICK, "-c", str(conf), "--seconds-per-step=0.05"]
    service = [
        *(sys.executable, "-m", "scheduler.local.fleet_service", f"--folder={world.folder / 'workers'}"),
        *("--env=SCHEDULER_SCHEDULER_HEALTH_PORT=0", "--", *worker),
    ]
    with subprocess.Popen(service, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().decode().split()[-1]
        yield Fleet(world, address, conf)
        process.terminate()
        process.wait(30)


def autoscaling(fleet: Fleet, **keys: object) -> None:
    """Write the section, or change it."""
    text = fleet.conf.read_text().partition("[autoscaling]")[0]
    section = {"enabled": "true", "fleet": "local", "fleet_id": fleet.address} | keys
    fleet.conf.write_text(text + "[autoscaling]\n" + "".join(f"{key} = {value}\n" for key, value in section.items()))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_three_hundred_tasks_while_leaders_die_and_instances_are_taken_away(world: World, fleet: Fleet) -> None:
    autoscaling(fleet, min_capacity=3, max_capacity=3)
    for number in range(300):
        world.send_task(f"task {number}", seed=number, steps=4)
    keeper = capacity_keeper(load(fleet.conf, os.environ), host="front-door")
    keeper.ensure_capacity(sent=300)
    try:
        until(lambda: len(fleet.serving()) == 3, 60, what="three workers")
        for round_ in range(3):
            leader = until(fleet.leader, 90, what="a worker that leads")
            if round_ == 1:
                fleet.interrupt(leader, in_s=25)
            else:
                fleet.kill(leader)
            until(lambda leader=leader: leader not in fleet.serving(), 60, what="its end")
        world.until_done(120)
        world.assert_all_completed()
        until(lambda: len(fleet.serving()) == 3, 90, what="three workers again")
        assert fleet.port.describe().target == 3
    except AssertionError as error:
        error.add_note(f"{fleet.port.describe()}\n{fleet.state.book()}\n{fleet.outputs()}")
        raise


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_edit_of_conf_ini_lets_the_fleet_go_with_nothing_killed(world: World, fleet: Fleet) -> None:
    autoscaling(fleet, min_capacity=2, max_capacity=2, policy="threshold", cooldown_s=0)
    capacity_keeper(load(fleet.conf, os.environ), host="front-door").ensure_capacity(sent=1)
    try:
        until(lambda: len(fleet.serving()) == 2, 60, what="two workers")
        until(fleet.leader, 90, what="a worker that leads")
        task = world.send_task("the last", steps=40)
        until(lambda: world.status(task) == "processing", what="its run")
        autoscaling(fleet, min_capacity=0, max_capacity=2, policy="threshold", cooldown_s=0)
        until(lambda: not fleet.port.describe().target, 120, what="a target of none")
        until(lambda: not fleet.serving(), 30, what="the end of all")
        world.until_done()
        world.assert_all_completed()
        assert world.record(task)["runs"] == 1
    except AssertionError as error:
        error.add_note(f"{fleet.port.describe()}\n{fleet.state.book()}\n{fleet.outputs()}")
        raise
