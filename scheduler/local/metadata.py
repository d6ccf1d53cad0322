"""Instance metadata of our own on loopback (IMDSv2), in which one orders what EC2 would announce; local mode and tests.

Several instances share a server, each below a path of its own, which is its endpoint.
"""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from scheduler.domain.ports import Clock

MAX_TTL_S = 21_600
_TOKEN_PATH = "latest/api/token"  # noqa: S105 - where tokens come from
_DATA_PATH = "latest/meta-data/"


class Reply(NamedTuple):
    """An answer: status, body, and the life of the token in it or behind it, in seconds."""

    status: int
    body: str = ""
    ttl_s: int | None = None


class LocalInstance:
    """One instance's metadata; the methods order what it says from now on. Safe for threads."""

    def __init__(
        self, endpoint: str, instance_id: str, *, instance_type: str, zone: str, life_cycle: str, clock: Clock
    ) -> None:
        self.endpoint = endpoint
        self.instance_id = instance_id
        self.is_too_far = False
        """Whether answers to requests for a token get lost, as beyond the hop limit."""
        self.refusals = 0
        """How many requests were refused for their token."""
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, float] = {}
        self._events: list[dict[str, str]] = []
        self._documents = {
            "instance-id": instance_id,
            "instance-type": instance_type,
            "instance-life-cycle": life_cycle,
            "placement/availability-zone": zone,
            "placement/region": zone.rstrip("abcdef"),
            "events/maintenance/scheduled": "[]",
        }

    def interrupt(self, in_s: float = 120.0, *, action: str = "terminate") -> None:
        """Announce that Spot takes the instance back in so many seconds: terminates, stops or hibernates it."""
        time = f"{datetime.fromtimestamp(self._clock.now() + in_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.document("spot/instance-action", json.dumps({"action": action, "time": time}))
        if action == "terminate":
            self.document("spot/termination-time", time)

    def rebalance(self) -> None:
        """Recommend to replace the instance, which the real one does when an interruption is likely."""
        time = f"{datetime.fromtimestamp(self._clock.now(), UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.document("events/recommendations/rebalance", json.dumps({"noticeTime": time}))

    def maintenance(self, in_s: float, *, code: str = "system-reboot") -> str:
        """Schedule maintenance in so many seconds; return the event's id."""
        event = {
            "NotBefore": self._date(in_s),
            "Code": code,
            "Description": f"scheduled {code}",
            "EventId": f"instance-event-{secrets.token_hex(8)}",
            "NotAfter": self._date(in_s + 7200),
            "State": "active",
        }
        with self._lock:
            self._events.append(event)
        self._publish_events()
        return event["EventId"]

    def cancel_maintenance(self, event_id: str) -> None:
        """Call maintenance off; it stays in the list, as cancelled."""
        with self._lock:
            for event in self._events:
                if event["EventId"] == event_id:
                    event |= {"State": "canceled", "Description": f"[Canceled] {event['Description']}"}
        self._publish_events()

    def lifecycle_state(self, state: str) -> None:
        """Say where the Auto Scaling group wants the instance: ``InService``, ``Terminated`` and so on."""
        self.document("autoscaling/target-lifecycle-state", state)

    def document(self, path: str, text: str | None) -> None:
        """Put any text at a path; None takes away what is there."""
        with self._lock:
            if text is None:
                self._documents.pop(path, None)
            else:
                self._documents[path] = text

    def forget_tokens(self) -> None:
        """Take no token given so far."""
        with self._lock:
            self._tokens.clear()

    def answer(self, method: str, path: str, headers: Any) -> Reply:
        """Return the answer to a request below the endpoint."""
        if path == _TOKEN_PATH:
            return self._give_token(headers) if method == "PUT" else Reply(405)
        if method != "GET":
            return Reply(405)
        with self._lock:
            ends_s = self._tokens.get(headers.get("X-aws-ec2-metadata-token", ""), 0.0)
            left_s = ends_s - self._clock.monotonic()
            if left_s <= 0:
                self.refusals += 1
                return Reply(401)
            text = self._documents.get(path.removeprefix(_DATA_PATH).rstrip("/"))
        return Reply(404) if text is None or not path.startswith(_DATA_PATH) else Reply(200, text, int(left_s))

    def _give_token(self, headers: Any) -> Reply:
        if "X-Forwarded-For" in headers:
            return Reply(403)  # a proxy asks, perhaps for somebody who must not know
        asked = headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked[:9]) <= MAX_TTL_S):
            return Reply(400)
        token = secrets.token_urlsafe(40)
        with self._lock:
            self._tokens[token] = self._clock.monotonic() + int(asked)
        return Reply(200, token, int(asked))

    def _publish_events(self) -> None:
        with self._lock:
            text = json.dumps(self._events)
        self.document("events/maintenance/scheduled", text)

    def _date(self, in_s: float) -> str:
        """Return a time from now as ``21 Jan 2027 09:00:43 GMT``, in English everywhere."""
        at = datetime.fromtimestamp(self._clock.now() + in_s, UTC)
        return format_datetime(at, usegmt=True).partition(", ")[2]


class LocalMetadata:
    """The server, as a context manager; instances may be added while it runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._instances: dict[str, LocalInstance] = {}
        self._server = _Server(("127.0.0.1", 0), self._instances)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="metadata", daemon=True)

    @property
    def url(self) -> str:
        """Its address; the endpoint of an instance is that with the instance's id behind it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(
        self,
        instance_id: str,
        *,
        instance_type: str = "g4dn.xlarge",
        zone: str = "us-east-1a",
        life_cycle: str = "spot",
    ) -> LocalInstance:
        """Add an instance to which nothing is announced yet."""
        instance = self._instances[instance_id] = LocalInstance(
            f"{self.url}/{instance_id}",
            instance_id,
            instance_type=instance_type,
            zone=zone,
            life_cycle=life_cycle,
            clock=self._clock,
        )
        return instance

    def close(self) -> None:
        """Stop serving; requests that wait for ever are let go."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], instances: dict[str, LocalInstance]) -> None:
        super().__init__(address, _Connection)
        self.instances = instances
        self.closing = threading.Event()


class _Connection(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.close_connection = True  # as the real one does after every answer
        instance_id, _, path = self.path.lstrip("/").partition("/")
        instance = self.server.instances.get(instance_id)
        if instance is not None and instance.is_too_far and self.command == "PUT":
            self.server.closing.wait()
            return
        reply = Reply(404) if instance is None else instance.answer(self.command, path, self.headers)
        body = reply.body.encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        if reply.ttl_s is not None:
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", str(reply.ttl_s))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - named by http.server

    def version_string(self) -> str:
        """Return what the Server header says."""
        return "EC2ws"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the overridden method's
        """Keep no access log."""
