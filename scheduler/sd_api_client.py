"""HTTP to the A1111 API: its routes, its time limits, what its silence means; it knows no tasks and no pictures."""

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
PROGRESS_TIMEOUT_S = 2.0
BODY_STALL_S = 30.0
"""How long a begun answer may pause: the engine has it whole before the first byte comes."""
ROOT = "/sdapi/v1/"


class NoSuchRoute(EngineDown):
    """The path is not there: the engine is still starting, or is a build without this route."""


class AnswerTimedOut(Exception):
    """A generating request got no answer in its time; the engine is still at it, for a POST cannot be withdrawn."""


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


class SdApiClient:
    """One engine's API; safe for threads.

    Reads (GET) share a connection a thread and are tried twice, unless nobody listens. Requests that change or generate something are
    sent once, each on a connection of its own, so that a closed connection always means that the engine died.
    Every method raises EngineDown (NoSuchRoute for a path that is not there) when it gets no good answer.
    """

    def __init__(
        self,
        base_url: str,
        auth: tuple[str, str] | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._connect_s = connect_timeout_s
        self._read_s = read_timeout_s
        # Compressing pictures again would cost the engine more than loopback saves.
        self._headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
        if auth is not None:
            pair = base64.b64encode(":".join(auth).encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {pair}"
        self._threads = threading.local()
        self._posts: dict[str, requests.PreparedRequest] = {}

    def options(self) -> dict[str, Any]:
        """Return the engine's settings; that this route answers is what being ready means."""
        return _object(self._get("options"), "options")

    def models(self) -> list[dict[str, Any]]:
        """Return the checkpoints as the engine lists them; hashes are null until the first load."""
        return _objects(self._get("sd-models"), "sd-models")

    def samplers(self) -> list[dict[str, Any]]:
        """Return the samplers, each with `name` and `aliases`."""
        return _objects(self._get("samplers"), "samplers")

    def schedulers(self) -> list[dict[str, Any]]:
        """Return the noise schedules, each with `name`, `label` and `aliases`; older builds have no such route."""
        return _objects(self._get("schedulers"), "schedulers")

    def progress(self) -> dict[str, Any]:
        """Return what the engine does now, without the picture in the making; it does not say for whom."""
        path = "progress?skip_current_image=true"
        return _object(self._get(path, timeout_s=min(PROGRESS_TIMEOUT_S, self._read_s)), "progress")

    def memory(self) -> dict[str, Any]:
        """Return the engine's own view of RAM and GPU memory."""
        return _object(self._get("memory"), "memory")

    def interrupt(self) -> None:
        """End whatever runs at its next step; harmless when nothing runs."""
        self._control("interrupt", self._read_s)

    def unload_checkpoint(self, timeout_s: float = 30.0) -> None:
        """Drop the weights from the GPU; the next request loads them again by itself."""
        self._control("unload-checkpoint", timeout_s)

    def refresh_checkpoints(self, timeout_s: float) -> None:
        """Make the engine look at its folder again; it waits for the running job first."""
        self._control("refresh-checkpoints", timeout_s)

    def generate(
        self, path: str, body: bytes, deadline_s: float, *, on_sent: Callable[[], None] | None = None
    ) -> EngineResponse:
        """Post `body` once; return when the headers of the answer come, its body unread, whatever the status.

        `on_sent` is called once the whole request is handed to the system, before the wait for the answer.

        Raises EngineDown when the engine never had the whole request, EngineLost when the connection ended
        after that, AnswerTimedOut when nothing came for `deadline_s`.
        """
        return self._post(path, body, deadline_s, on_sent)

    # how it is sent

    def _post(self, path: str, body: bytes, read_s: float, on_sent: Callable[[], None] | None = None) -> EngineResponse:
        request = self._prepared(path, body)
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

    def _prepared(self, path: str, body: bytes) -> requests.PreparedRequest:
        """Return the request; all but its body is made once for each path."""
        known = self._posts.get(path)
        if known is None:
            headers = self._headers | {"Content-Type": "application/json"}
            known = self._posts[path] = requests.Request("POST", self._url(path), headers=headers).prepare()
        request = known.copy()
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        return request

    def _undelivered(self, error: RequestException) -> EngineDown | EngineLost:
        """Say whether a request that got no answer can have reached the engine whole."""
        reason = error.args[0] if error.args else None
        if isinstance(reason, MaxRetryError):
            reason = reason.reason
        if isinstance(error, (ConnectTimeout, SSLError)) or isinstance(reason, NewConnectionError):
            return EngineDown(f"no connection to {self.base_url}: {_root(error)}")
        if isinstance(reason, ProtocolError) and isinstance(reason.args[-1], TimeoutError):
            return EngineDown(f"{self.base_url} took no more of the request for {self._connect_s:g} s")
        if isinstance(error, RequestsConnectionError):
            return EngineLost(f"the engine closed the connection without an answer: {_root(error)}")
        return EngineDown(f"the request to {self.base_url} could not be sent: {error}")

    def _control(self, path: str, timeout_s: float) -> None:
        try:
            response = self._post(ROOT + path, b"", timeout_s)
        except AnswerTimedOut as error:
            raise EngineDown(f"{path}: the engine did not answer in {timeout_s:g} s") from error
        except EngineLost as error:
            raise EngineDown(f"{path}: {error.message}") from error
        try:
            self._check(path, response.status, response.read(1 << 20) or b"")
        except EngineLost as error:
            raise EngineDown(f"{path}: {error.message}") from error

    def _get(self, path: str, *, timeout_s: float | None = None) -> Any:
        read_s = self._read_s if timeout_s is None else timeout_s
        try:
            response = self._session().get(
                self._url(ROOT + path), timeout=(self._connect_s, read_s), allow_redirects=False
            )
        except RequestException as error:
            raise EngineDown(f"no answer from {self.base_url}{ROOT}{path}: {_root(error)}") from error
        self._check(path, response.status_code, response.content)
        try:
            return json.loads(response.content)
        except ValueError as error:
            raise EngineDown(f"{path} answered with something that is not JSON: is this an A1111 API?") from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = requests.Session()
            session.trust_env = False
            session.headers.update(self._headers)
            retry = Retry(total=1, connect=0, read=1, status=0, redirect=0, allowed_methods={"GET"}, backoff_factor=0)
            session.mount(self.base_url, HTTPAdapter(max_retries=retry, pool_connections=1, pool_maxsize=1))
        return session

    def _url(self, path: str) -> str:
        return self.base_url + path

    def _check(self, path: str, status: int, body: bytes) -> None:
        """Raise EngineDown unless a control call's status is good."""
        if status < 300:
            return
        if status in {404, 405}:
            raise NoSuchRoute(f"{self.base_url}{ROOT}{path} is not there (yet): {status}")
        if status == 401:
            raise EngineDown(f"{self.base_url} refused the credentials: api_auth is wrong or missing")
        said = body[:300].decode("utf-8", "replace")
        raise EngineDown(f"{path} answered {status}: {said}")


def _telling(body: bytes, on_sent: Callable[[], None]) -> Iterator[bytes]:
    """Yield `body` as one piece; the next piece is asked for when it was sent."""
    yield body
    on_sent()


def _object(answer: Any, route: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise EngineDown(f"{route} answered with no object: is this an A1111 API?")
    return answer


def _objects(answer: Any, route: str) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise EngineDown(f"{route} answered with no list: is this an A1111 API?")
    return [entry for entry in answer if isinstance(entry, dict)]


def _root(error: BaseException) -> str:
    """Return the innermost words of an error that three libraries have wrapped."""
    seen: BaseException = error
    while True:
        inner = getattr(seen, "reason", None) or next(
            (arg for arg in reversed(seen.args) if isinstance(arg, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            return str(seen)
        seen = inner
