"""A program that tries the hostile addresses, best in a network of its own, and prints what came of each as JSON.

Whatever reaches for the network, by whichever way, is written down and stopped by the interpreter itself.
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Mapping
from typing import Any

from hostile import OWN_BUCKET, REACHING, REFUSED, Case

from scheduler.domain.destinations import Guard
from scheduler.domain.errors import SchedulerError
from scheduler.guarded_http import GuardedHttp
from scheduler.stores.inputs import FetchedInputs

FIELD = "payload.init_images.0"
WATCHED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}
TLS = ssl.create_default_context()
reached: list[str] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WATCHED:
        where = arguments[1] if event == "socket.connect" else arguments[0]
        reached.append(f"{event} {where}")
        raise ConnectionRefusedError("stopped by the test")


class Nothing:
    """In place of S3: whoever asks it for anything has reached too far."""

    def __getattr__(self, name: str) -> Any:
        reached.append(f"s3 {name}")
        raise ConnectionRefusedError("stopped by the test")


def outcome(case: Case) -> dict[str, Any]:
    del reached[:]
    resolve = None if case.answers is None else lambda _host, _port, _within_s: case.answers
    inputs = FetchedInputs(
        http=GuardedHttp(Guard(case.allow_hosts), resolve=resolve, tls=TLS),
        s3=Nothing(),
        buckets=[OWN_BUCKET],
        max_bytes=1 << 20,
        max_pixels=1 << 20,
        timeout_s=5.0,
    )
    found: dict[str, Any] = {"error": None, "field": None, "message": ""}
    try:
        inputs.image(case.address, field=FIELD)
    except SchedulerError as error:
        found = {"error": type(error).__name__, "field": getattr(error, "field", None), "message": str(error)}
    return found | {"reached": list(reached)}


def outcomes(cases: Mapping[str, Case]) -> dict[str, Any]:
    return {name: outcome(case) for name, case in cases.items()}


if __name__ == "__main__":
    sys.addaudithook(watch)
    json.dump({"refused": outcomes(REFUSED), "reaching": outcomes(REACHING)}, sys.stdout)
