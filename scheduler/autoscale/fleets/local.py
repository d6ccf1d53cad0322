"""The workers of this machine, kept by the local fleet service: `GET /fleet`, `PUT /target`, `POST /end`, in JSON."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member
from scheduler.domain.errors import Unavailable

TIMEOUT_S = 5.0


class LocalFleet:
    """The fleet that a service at `address` (``http://127.0.0.1:PORT``) keeps; it behaves as a Spot Fleet does."""

    lowers_target = True
    replaces = True

    def __init__(self, address: str) -> None:
        self.name = f"local {address}"
        url = urlsplit(address)
        self._host, self._port = url.hostname or "", url.port

    def describe(self) -> FleetView:
        """Return the fleet as the service shows it."""
        return view_from_json(self._ask("GET", "/fleet"))

    def set_target(self, capacity: int) -> None:
        """Set the target; an excess is kept."""
        self._ask("PUT", "/target", {"capacity": capacity})

    def end(self, instance_ids: Sequence[str], *, replace: bool) -> None:  # noqa: ARG002 - the target decides
        """Stop workers. The target decides whether others come."""
        self._ask("POST", "/end", {"instance_ids": list(instance_ids)})

    def end_self(self, instance_id: str, *, replace: bool) -> None:
        """Have this worker stopped."""
        self.end([instance_id], replace=replace)

    def faults(self) -> list[str]:
        """Return nothing: there is nothing to set."""
        return []

    def _ask(self, method: str, path: str, order: Mapping[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, None if order is None else json.dumps(order))
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise Unavailable(f"{self.name}: {method} {path} was answered with {response.status}: {body[:200]!r}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(f"{self.name} does not answer: {error}") from error
        finally:
            connection.close()


def view_to_json(view: FleetView) -> dict[str, Any]:
    """Return a view in JSON's types."""
    return asdict(view)


def view_from_json(read: Mapping[str, Any]) -> FleetView:
    """Return the view that `view_to_json` gave. Raises Unavailable when it is none."""
    try:
        members = tuple(Member(**{**each, "life": Life(each["life"])}) for each in read["members"])
        return FleetView(**{**read, "condition": Condition(read["condition"]), "members": members})
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(f"the local fleet answered with something else: {error!r}") from error
