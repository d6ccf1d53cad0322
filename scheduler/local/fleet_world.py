"""Local mode with a fleet: beside moto and the configuration, a service that keeps as many workers as are wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from scheduler.aws import operator_clients
from scheduler.aws.addresses import Account
from scheduler.aws.make_state_table import make_state_table
from scheduler.aws.making import CHANGES, Making
from scheduler.domain.errors import Fatal
from scheduler.local.serving.announcing import announced
from scheduler.local.world import ACCOUNT, REGION, TABLE, LocalWorld

BOOT_S = 3.0
SECTION = """
[autoscaling]
enabled = true
fleet = local
fleet_id = {address}
"""


class LocalFleetWorld:
    """A context manager over a `LocalWorld` that is up: the fleet's table, its service,
    and [autoscaling] in conf.ini.
    """

    def __init__(
        self,
        world: LocalWorld,
        *,
        max_capacity: int,
        keys: Mapping[str, object] | None = None,
    ) -> None:
        """`keys` are further ones of [autoscaling]."""
        self._world = world
        self._keys = {"max_capacity": max_capacity, **(keys or {})}
        self._service: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        making = Making(clients=operator_clients.build(REGION), account=Account(number=ACCOUNT, region=REGION))
        for outcome in make_state_table(making, f"{TABLE}-fleet"):
            if outcome.state not in CHANGES:
                raise Fatal(f"{outcome.resource}: {outcome.told} {outcome.detail}")
        self.address = self._start()
        with self._world.config.open("a") as config:
            config.write(SECTION.format(address=self.address))
            config.writelines(f"{key} = {value}\n" for key, value in self._keys.items())
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._service is None or self._service.stdin is None:
            return
        self._service.stdin.close()  # which ends it, and it ends its workers
        self._service.wait()

    def interrupt(self, instance_id: str, *, in_s: float) -> None:
        """Have a worker told that it is taken away, and taken away then."""
        url = urlsplit(self.address)
        connection = HTTPConnection(url.hostname or "", url.port, timeout=10)
        try:
            connection.request("POST", "/interrupt", json.dumps({"instance_id": instance_id, "in_s": in_s}))
            response = connection.getresponse()
            if response.status != 200:
                raise Fatal(f"the local fleet refused to interrupt {instance_id}: {response.read()!r}")
        finally:
            connection.close()

    def output(self, instance_id: str) -> Path:
        """Return the file that holds what a worker printed."""
        return self._world.folder / "fleet" / instance_id / "output"

    def _start(self) -> str:
        folder = self._world.folder / "fleet"
        worker = [sys.executable, "-m", "scheduler.local.worker", "-c", str(self._world.config.resolve())]
        self._service = subprocess.Popen(  # noqa: S603 - our own modules under our own interpreter
            [
                *(sys.executable, "-m", "scheduler.local.fleet_service"),
                f"--folder={folder}",
                f"--boot-seconds={BOOT_S:g}",
                "--env=SCHEDULER_SCHEDULER_HEALTH_PORT=0",
                "--",
                *worker,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is for this process, which then stops that one
            env=os.environ,
        )
        address = announced(self._service)
        if address is None:
            raise Fatal("the local fleet's service did not start")
        return address
