"""What EC2 tells an instance about itself (IMDSv2): asked directly, never through a proxy,
and never without a token.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from scheduler.domain.errors import ConfigError, Unavailable
from scheduler.domain.ports import Clock

ENDPOINT = "http://169.254.169.254"
ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"

TOKEN_TTL_S = 3600
TOKEN_SPARE_S = 60
"""A token is replaced so long before its end, so that none ends on its way."""
CONNECT_TIMEOUT_S = 1.0
"""The service is on the same host; where no connection comes about in this time, there is none."""
ANSWER_TIMEOUT_S = 2.0
TRIES = 3
TOKENS = 3
PAUSE_S = 0.1
MAX_BYTES = 64 * 1024

_TOKEN_PATH = "latest/api/token"  # noqa: S105 - where tokens come from
_DATA_PATH = "latest/meta-data/"
_TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105 - the header's name
_TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = re.compile(r"[!-~]{1,1024}")
_PLAIN = re.compile(r"[\t\r\n -~]*")

TOO_FAR = (
    "it took the request for a token and did not answer: from within a container the answer does not come back while "
    "the hop limit is 1. Allow 2 with `aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 "
    "--instance-id ID`, or give the container the host's network"
)
TURNED_OFF = (
    "it refuses (403): instance metadata is turned off. Turn it on with `aws ec2 modify-instance-metadata-options "
    "--http-endpoint enabled --instance-id ID`"
)


class NotAnInstance(Unavailable):
    """No connection to the endpoint, or what answers there is not EC2's: as far as can be told, no EC2 instance."""


class _Passing(Exception):
    """It went wrong in a way that another try may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this instance is; what the service does not tell is empty."""

    instance_id: str
    instance_type: str
    zone: str
    life_cycle: str
    """``spot`` or ``on-demand``, or what AWS has added since."""

    @property
    def is_spot(self) -> bool:
        """Whether EC2 may take it back."""
        return self.life_cycle == "spot"


class InstanceMetadata:
    """One instance's metadata service; safe for threads.

    Its errors say what to do about it, and never hold the token.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        clock: Clock,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """Use the service at `endpoint`, an http URL. Raises ConfigError when it is none."""
        self.endpoint = endpoint.rstrip("/")
        self._host, self._port, self._prefix = _taken_apart(endpoint)
        self._clock = clock
        self._connect_s = connect_timeout_s
        self._answer_s = answer_timeout_s
        self._lock = threading.Lock()
        self._token = ""
        self._token_ends_s = float("-inf")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, clock: Clock) -> Self | None:
        """Return the service that the AWS variables name, by default EC2's own; None where they turn it off."""
        if environ.get(DISABLED_VARIABLE, "").lower() == "true":
            return None
        return cls(environ.get(ENDPOINT_VARIABLE) or ENDPOINT, clock=clock)

    def identity(self) -> Identity | None:
        """Return who this instance is, or None where there is no such service: a laptop is not an error.

        Raises Unavailable when there is a service that does not answer well.
        """
        try:
            instance_id = self.get("instance-id")
        except NotAnInstance:
            return None
        if not instance_id:
            raise Unavailable(f"the instance metadata at {self.endpoint} names no instance-id")
        return Identity(
            instance_id=instance_id.strip(),
            instance_type=(self.get("instance-type") or "").strip(),
            zone=(self.get("placement/availability-zone") or "").strip(),
            life_cycle=(self.get("instance-life-cycle") or "").strip(),
        )

    def get(self, path: str, *, tries: int = TRIES) -> str | None:
        """Return the document at `path` below ``latest/meta-data/``, or None where there is none (404).

        Raises NotAnInstance at once when there is no connection, Unavailable after `tries` failures.
        """
        attempt = 1
        while True:
            try:
                return self._get(path)
            except _Passing as error:
                if attempt >= tries:
                    raise Unavailable(f"instance metadata at {self.endpoint}: {error}") from error
            time.sleep(PAUSE_S * attempt)
            attempt += 1

    def _get(self, path: str) -> str | None:
        for _ in range(TOKENS):
            status, body = self._send("GET", _DATA_PATH + path, {_TOKEN_HEADER: self._valid_token()})
            if status != 401:
                break
            self._forget_token()  # the service forgot it, it ended on the way, or our clock stood still
        if status == 404:
            return None
        if status != 200:
            raise self._refused(path, status)
        text = body.decode("latin-1")
        if not _PLAIN.fullmatch(text):
            raise Unavailable(f"instance metadata at {self.endpoint}: {path} is not plain ASCII text")
        return text

    def _valid_token(self) -> str:
        with self._lock:
            if self._clock.monotonic() >= self._token_ends_s - TOKEN_SPARE_S:
                asked_s = self._clock.monotonic()
                self._token = self._new_token()
                self._token_ends_s = asked_s + TOKEN_TTL_S
            return self._token

    def _forget_token(self) -> None:
        with self._lock:
            self._token_ends_s = float("-inf")

    def _new_token(self) -> str:
        try:
            status, body = self._send("PUT", _TOKEN_PATH, {_TTL_HEADER: str(TOKEN_TTL_S)})
        except _Passing as error:
            raise _Passing(TOO_FAR if isinstance(error.__cause__, TimeoutError) else str(error)) from error
        if status in {404, 405}:
            raise NotAnInstance(f"what answers at {self.endpoint} gives no tokens ({status}): not EC2's metadata")
        if status != 200:
            raise self._refused("the request for a token", status)
        token = body.decode("latin-1")
        if not _TOKEN.fullmatch(token):
            raise NotAnInstance(f"what answers at {self.endpoint} with a token is not EC2's metadata")
        return token

    def _refused(self, what: str, status: int) -> Exception:
        if status >= 500 or status == 429:
            return _Passing(f"{what} was answered {status}")
        why = TURNED_OFF if status == 403 else f"{what} was answered {status}"
        return Unavailable(f"instance metadata at {self.endpoint}: {why}")

    def _send(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send one request on a connection of its own; return status and body. http.client knows no proxies."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_s)
        try:
            connection.connect()
        except OSError as error:
            raise NotAnInstance(f"no instance metadata at {self.endpoint}: {error}") from error
        try:
            connection.sock.settimeout(self._answer_s)
            connection.request(method, f"{self._prefix}/{path}", headers=dict(headers))
            with connection.getresponse() as response:
                body = response.read(MAX_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"{path} was not answered: {error!r}") from error
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise Unavailable(f"instance metadata at {self.endpoint}: {path} is larger than {MAX_BYTES} bytes")
        if response.length:  # what Content-Length promised and did not come
            raise _Passing(f"{path} broke off after {len(body)} bytes")
        return response.status, body


def _taken_apart(endpoint: str) -> tuple[str, int, str]:
    """Return host, port and path of an http URL."""
    try:
        url = urlsplit(endpoint)
        if url.scheme == "http" and url.hostname and not (url.query or url.fragment or url.username):
            return url.hostname, url.port or 80, url.path.rstrip("/")
    except ValueError:
        pass
    raise ConfigError([f"{ENDPOINT_VARIABLE} is {endpoint!r}: it must be an address such as {ENDPOINT}"])
