"""HTTP to an image server on this host: what is sent once, what may be asked twice,
what silence means; it knows no routes.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout, ReadTimeout, RequestException, SSLError
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError
from urllib3.util.retry import Retry

from scheduler.domain.errors import EngineDown, EngineLost

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 5.0
BODY_STALL_S = 30.0
"""How long a begun answer may pause: the engine has it whole before the first byte comes."""
_MOST_CONTROL_BYTES = 1 << 20


class NoSuchRoute(EngineDown):
    """The path is not there: the engine is still starting, or is a build without this route."""


class NobodyListens(EngineDown):
    """The connection was refused: no engine is there, and one that was has died."""


class AnswerTimedOut(Exception):
    """A request that was sent once got no answer in its time; the engine is still at it,
    for a POST cannot be withdrawn.
    """


class EngineResponse:
    """An answer whose headers have come; its body is read once, or thrown away."""

    def __init__(self, response: requests.Response, connection: HTTPAdapter) -> None:
        self._response = response
        self._connection = connection
        self.status = response.status_code
        sock = getattr(response.raw.connection, "sock", None)
        if sock is not None:
            sock.settimeout(BODY_STALL_S)

    def read(self, most_bytes: int) -> bytes | None:
        """Return the body, or None if it is larger than `most_bytes`; the connection is closed either way.

        Raises EngineLost when the body breaks off.
        """
        raw = self._response.raw
        try:
            if int(raw.headers.get("Content-Length") or 0) > most_bytes:
                return None
            body: bytes = raw.read(None if "Content-Length" in raw.headers else most_bytes + 1, decode_content=True)
        except (HTTPError, OSError, ValueError) as error:
            raise EngineLost(f"the engine's answer broke off: {error}") from error
        finally:
            self.close()
        return body if len(body) <= most_bytes else None

    def close(self) -> None:
        """Close the connection; what was not read is lost."""
        self._response.close()
        self._connection.close()


class EngineHttp:
    """One engine's server, called `api` in errors; safe for threads.

    Reads (GET) share a connection a thread and are tried twice, unless nobody listens. Requests that change or generate
    something are sent once, each on a connection of its own, so that a closed connection always means that the engine
    died.
    """

    def __init__(
        self,
        base_url: str,
        auth: tuple[str, str] | None = None,
        *,
        api: str,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.read_timeout_s = read_timeout_s
        self._api = api
        self._connect_s = connect_timeout_s
        # Compressing pictures again would cost the engine more than loopback saves.
        self.headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        if auth is not None:
            pair = base64.b64encode(":".join(auth).encode()).decode("ascii")
            self.headers["Authorization"] = f"Basic {pair}"
        self._threads = threading.local()
        self._posts: dict[str, requests.PreparedRequest] = {}

    def post(
        self,
        path: str,
        body: bytes,
        read_s: float,
        *,
        content_type: str = "application/json",
        on_sent: Callable[[], None] | None = None,
    ) -> EngineResponse:
        """Post `body` once; return when the headers of the answer come, its body unread, whatever the status.

        `on_sent` is called once the whole request is handed to the system, before the wait for the answer.

        Raises EngineDown when the engine never had the whole request, EngineLost when the connection ended
        after that, AnswerTimedOut when nothing came for `read_s`.
        """
        request = self._prepared(path, body, content_type)
        if on_sent is not None:
            request.body = _telling(body, on_sent)  # type: ignore[assignment]  # the stubs know no body in pieces
        # A new adapter is a new pool, hence a new connection: nothing stale can be reused, nothing is sent twice.
        connection = HTTPAdapter(max_retries=0)
        try:
            response = connection.send(request, stream=True, timeout=(self._connect_s, read_s))
        except ReadTimeout as error:
            connection.close()
            raise AnswerTimedOut from error
        except RequestException as error:
            connection.close()
            raise self._undelivered(error) from error
        return EngineResponse(response, connection)

    def control(self, path: str, body: bytes, timeout_s: float, *, content_type: str = "application/json") -> bytes:
        """Post what is answered at once and return the answer. Raises EngineDown for anything but a good one."""
        try:
            response = self.post(path, body, timeout_s, content_type=content_type)
            answer = response.read(_MOST_CONTROL_BYTES) or b""
        except AnswerTimedOut as error:
            raise EngineDown(f"{path}: the engine did not answer in {timeout_s:g} s") from error
        except EngineLost as error:
            raise EngineDown(f"{path}: {error.message}") from error
        self.check(path, response.status, answer)
        return answer

    def get_json(self, path: str, *, timeout_s: float | None = None) -> Any:
        """Return the JSON at `path`. Raises EngineDown, NoSuchRoute or NobodyListens."""
        with self._get(path, timeout_s) as response:
            self.check(path, response.status_code, response.content)
            try:
                return json.loads(response.content)
            except (ValueError, RecursionError) as error:
                raise EngineDown(
                    f"{path} answered with something that is not JSON: is this an {self._api} API?"
                ) from error

    def get_bytes(self, path: str, most_bytes: int) -> bytes | None:
        """Return the bytes at `path`, None if they are more than `most_bytes`. Raises as `get_json`,
        also when they break off.
        """
        with self._get(path, BODY_STALL_S, stream=True) as response:
            if response.status_code >= 300:
                self.check(path, response.status_code, response.raw.read(300))
            try:
                body: bytes = response.raw.read(most_bytes + 1)
                if len(body) <= most_bytes and int(response.headers.get("Content-Length") or len(body)) != len(body):
                    raise EngineDown(f"{path} broke off after {len(body)} bytes")
            except (HTTPError, OSError, ValueError) as error:
                raise EngineDown(f"{path} broke off: {error}") from error
        return body if len(body) <= most_bytes else None

    def check(self, path: str, status: int, body: bytes) -> None:
        """Raise EngineDown unless a call's status is good."""
        if status < 300:
            return
        if status in {404, 405}:
            raise NoSuchRoute(f"{self.base_url}{path} is not there (yet): {status}")
        if status == 401:
            said = "api_auth, which is sent to SD WebUIs only, is wrong or missing"
            raise EngineDown(f"{self.base_url} refused the credentials: {said}")
        said = body[:300].decode("utf-8", "replace")
        raise EngineDown(f"{path} answered {status}: {said}")

    def _prepared(self, path: str, body: bytes, content_type: str) -> requests.PreparedRequest:
        """Return the request; all but its body is made once for each path."""
        known = self._posts.get(path)
        if known is None:
            known = self._posts[path] = requests.Request("POST", self.base_url + path, headers=self.headers).prepare()
        request = known.copy()
        request.body = body
        request.headers["Content-Type"] = content_type
        request.headers["Content-Length"] = str(len(body))
        return request

    def _undelivered(self, error: RequestException) -> EngineDown | EngineLost:
        """Say whether a request that got no answer can have reached the engine whole."""
        reason = error.args[0] if error.args else None
        if isinstance(reason, MaxRetryError):
            reason = reason.reason
        if isinstance(reason, NewConnectionError):
            return NobodyListens(f"no connection to {self.base_url}: {_root(error)}")
        if isinstance(error, (ConnectTimeout, SSLError)):
            return EngineDown(f"no connection to {self.base_url}: {_root(error)}")
        if isinstance(reason, ProtocolError) and isinstance(reason.args[-1], TimeoutError):
            return EngineDown(f"{self.base_url} took no more of the request for {self._connect_s:g} s")
        if isinstance(error, RequestsConnectionError):
            return EngineLost(f"the engine closed the connection without an answer: {_root(error)}")
        return EngineDown(f"the request to {self.base_url} could not be sent: {error}")

    def _get(self, path: str, timeout_s: float | None, *, stream: bool = False) -> requests.Response:
        read_s = self.read_timeout_s if timeout_s is None else timeout_s
        try:
            return self._session().get(
                self.base_url + path, timeout=(self._connect_s, read_s), allow_redirects=False, stream=stream
            )
        except RequestException as error:
            inner = error.args[0] if error.args else None
            reason = inner.reason if isinstance(inner, MaxRetryError) else inner
            kind = NobodyListens if isinstance(reason, NewConnectionError) else EngineDown
            raise kind(f"no answer from {self.base_url}{path}: {_root(error)}") from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.trust_env = False
            session.headers.update(self.headers)
            retry = Retry(total=1, connect=0, read=1, status=0, redirect=0, allowed_methods={"GET"}, backoff_factor=0)
            session.mount(self.base_url, HTTPAdapter(max_retries=retry, pool_connections=1, pool_maxsize=1))
        return session


def _telling(body: bytes, on_sent: Callable[[], None]) -> Iterator[bytes]:
    """Yield `body` as one piece; the next piece is asked for when it was sent."""
    yield body
    on_sent()


def _root(error: BaseException) -> str:
    """Return the innermost words of an error that three libraries have wrapped."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in reversed(seen.args) if isinstance(arg, BaseException)), None
        )
        if isinstance(inner, BaseException):
            seen = inner
        elif isinstance(seen, NewConnectionError) and isinstance(seen.__cause__, OSError):
            return seen.__cause__.strerror or str(seen)
        else:
            return str(seen)
