"""Those who are told of ends, in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fakes.faults import Faults


class FakeTopic:
    """The `Topic` port; `published` holds every message with what names it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.fail_next = self.faults.fail_next
        self.published: list[tuple[dict[str, Any], str | None]] = []

    def publish(self, message: Mapping[str, Any], *, named: str | None) -> None:
        with self.faults.around("publish"):
            self.published.append((json.loads(json.dumps(message)), named))


class FakeWebhooks:
    """The `Webhooks` port; `sent` holds the address, the body and the name of each."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any], str]] = []

    def send(self, url: str, body: bytes, *, named: str, task_id: str) -> None:
        told = json.loads(body)
        assert told["data"]["task_id"] == task_id
        self.sent.append((url, told, named))
