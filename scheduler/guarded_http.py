"""HTTP to addresses that somebody else chose: judged, gone to only as judged, bounded in bytes and in time.

It knows neither tasks nor pictures. The connection is made here and handed to the standard library's client, which
therefore cannot look a name up again, follow a redirect, use a proxy, or send a cookie or a login of its own.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO
from urllib.parse import quote, urljoin

from scheduler.domain.destinations import Forbidden, Guard, WebAddress, shown

MAX_REDIRECTS = 5
CONNECT_TIMEOUT_S = 5.0
"""For one of the addresses of a host, so that one that is silent leaves time for the next."""
MAX_OVERHEAD_BYTES = 1 << 20
"""What may come beside a body: headers, the frames of its chunks, interim answers without end."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 421, 425, 429})
"""The statuses below 500 that say nothing about the address."""
_HEADERS = {"User-Agent": "sd-scheduler", "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

Resolve = Callable[[str, int, float], Sequence[str]]
"""Host, port, seconds → the IP addresses; raises OSError."""
Connect = Callable[[str, int, float], socket.socket]
"""IP address, port, seconds → a connected socket; raises OSError."""


class NoAnswer(Exception):
    """No answer, or one that says nothing about the address: it may succeed later."""


class BadAnswer(Exception):
    """An answer that cannot be used, and that will be the same next time."""


class Deadline:
    """A moment by which everything must be over, whatever it consists of."""

    def __init__(self, within_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.within_s = within_s
        self._monotonic = monotonic
        self._end_s = monotonic() + within_s

    def left_s(self) -> float:
        """Return the seconds left. Raises TimeoutError when there are none."""
        left_s = self._end_s - self._monotonic()
        if left_s <= 0:
            raise TimeoutError(f"not done within {self.within_s:g} s")
        return left_s


class GuardedHttp:
    """Requests to addresses that `guard` lets pass; safe for threads, one connection for each request.

    `resolve`, `connect` and `tls` are the system's unless others are given. Certificates are verified against the
    system's authorities (`SSL_CERT_FILE` is honoured) and the host's name.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        resolve: Resolve | None = None,
        connect: Connect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._resolve = resolve or look_up
        self._connect = connect or _connect
        if tls is not None:
            self._tls = tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The system's authorities: megabytes, which a worker that fetches nothing can do without."""
        return ssl.create_default_context()

    def fetch(self, address: str, *, deadline: Deadline, max_bytes: int) -> bytes:
        """Return what a GET brings, after at most `MAX_REDIRECTS` redirects, each judged from the beginning.

        Raises Forbidden for what may not be gone to, BadAnswer for an answer that stays as it is, NoAnswer else.
        """
        for _ in range(MAX_REDIRECTS + 1):
            with self._answer("GET", address, deadline=deadline, max_bytes=max_bytes) as answer:
                if answer.status not in _REDIRECTS:
                    return _body(answer, address, max_bytes)
                address = _target(answer, address)
        raise BadAnswer(f"{shown(address)} is the end of more than {MAX_REDIRECTS} redirects")

    def post(self, address: str, body: bytes, *, headers: Mapping[str, str], deadline: Deadline) -> int:
        """Send `body` once and return the answer's status; redirects are not followed. Raises as `fetch` does."""
        with self._answer("POST", address, deadline=deadline, max_bytes=0, body=body, headers=headers) as answer:
            return answer.status

    @contextmanager
    def _answer(
        self,
        method: str,
        address: str,
        *,
        deadline: Deadline,
        max_bytes: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send one request and yield its answer, whose body is still to be read; everything is over at the end."""
        where = self._guard.read(address)
        try:
            with closing(self._connected(where, deadline)) as sock:
                connection = HTTPConnection(where.host, where.port)
                bounded: Any = _BoundedSocket(sock, deadline, max_bytes + MAX_OVERHEAD_BYTES)
                connection.sock = bounded
                connection.request(
                    method, where.target, body, {"Host": where.authority} | _HEADERS | dict(headers or {})
                )
                answer = connection.getresponse()
                if bounded.has_ended:  # the client takes the end of the connection for that of the headers
                    raise ConnectionError("within the headers")
                yield answer
        except TimeoutError as error:
            raise NoAnswer(f"{shown(address)} was not done within {deadline.within_s:g} s") from error
        except (OSError, IncompleteRead) as error:
            raise NoAnswer(f"the connection to {shown(address)} broke off: {_words(error)}") from error
        except HTTPException as error:  # its words are the server's, which are nobody's to see
            raise BadAnswer(f"what {shown(address)} answers is not HTTP ({type(error).__name__})") from error

    def _connected(self, where: WebAddress, deadline: Deadline) -> socket.socket:
        """Resolve once, judge every address, and connect to one of just these."""
        try:
            found = [where.host] if where.is_ip else self._resolve(where.host, where.port, deadline.left_s())
        except OSError as error:
            raise NoAnswer(f"the host of {shown(where.url)} cannot be looked up: {_words(error)}") from error
        for ip in found:
            self._guard.check(where, ip)
        trouble: OSError = OSError("it has no address")
        for ip in dict.fromkeys(found):
            try:
                return self._secured(
                    self._connect(ip, where.port, min(CONNECT_TIMEOUT_S, deadline.left_s())), where, deadline
                )
            except OSError as error:
                trouble = error
        raise NoAnswer(f"no connection to {shown(where.url)}: {_words(trouble)}") from trouble

    def _secured(self, sock: socket.socket, where: WebAddress, deadline: Deadline) -> socket.socket:
        if where.scheme != "https":
            return sock
        try:
            sock.settimeout(deadline.left_s())
            return self._tls.wrap_socket(sock, server_hostname=where.host)
        except BaseException:
            sock.close()
            raise


def look_up(host: str, port: int, within_s: float) -> list[str]:
    """Return the IP addresses of a host. Raises OSError, TimeoutError when the system takes longer than `within_s`."""
    answer: SimpleQueue[list[str] | OSError] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([str(address[0]) for *_, address in found])
        except OSError as error:
            answer.put(error)

    # The system's resolver cannot be interrupted, only left alone.
    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=within_s)
    except Empty:
        raise TimeoutError(f"no answer in {within_s:.3g} s") from None
    if isinstance(found, OSError):
        raise found
    return found


def _connect(ip: str, port: int, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _BoundedSocket:
    """A connected socket as the client of the standard library uses one, within a deadline and a number of bytes."""

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw = _BoundedReader(sock, deadline, max_bytes)
        self._reader = io.BufferedReader(self._raw)

    @property
    def has_ended(self) -> bool:
        return self._raw.has_ended

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left_s())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> BinaryIO:
        return self._reader

    def close(self) -> None:
        """Nothing: who made the connection closes it, after the body was read."""


class _BoundedReader(io.RawIOBase):
    """What comes from a socket. Each piece gets the time that is left, so that drops do not add up to an hour."""

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        self._sock = sock
        self._deadline = deadline
        self._max_bytes = self._left = max_bytes
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left_s())
        count = self._sock.recv_into(buffer)
        self.has_ended = count == 0
        self._left -= count
        if self._left < 0:
            raise BadAnswer(f"an answer of more than {self._max_bytes} bytes, headers included")
        return count


def _body(answer: HTTPResponse, address: str, max_bytes: int) -> bytes:
    """Read the body of a good answer, whatever its headers say of its length."""
    if answer.status >= 500 or answer.status in _PASSING:
        raise NoAnswer(f"{shown(address)} answered {answer.status}")
    if answer.status != 200:
        raise BadAnswer(f"{shown(address)} answered {answer.status}")
    encoding = answer.getheader("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        # Asked for as it is, it comes compressed only by mistake or as a bomb.
        raise BadAnswer(f"{shown(address)} is sent compressed ({encoding[:20]!a}), although that was not asked for")
    told = answer.length
    if told is not None and told > max_bytes:
        raise BadAnswer(f"{shown(address)} has {told} bytes; {max_bytes} are the most")
    try:
        body = answer.read(max_bytes + 1)
    except (ValueError, OverflowError) as error:  # the standard library's client believes any size of a chunk
        raise BadAnswer(f"{shown(address)} is sent in chunks of impossible sizes") from error
    if len(body) > max_bytes:
        raise BadAnswer(f"{shown(address)} has more than {max_bytes} bytes")
    if told is not None and len(body) < told:
        raise NoAnswer(f"{shown(address)} broke off after {len(body)} of {told} bytes")
    return body


def _target(answer: HTTPResponse, address: str) -> str:
    """Return where a redirect leads; it is judged like any other address when it is gone to."""
    location = answer.getheader("Location")
    if not location:
        raise BadAnswer(f"{shown(address)} redirects to nowhere")
    if any(character < " " or character in "\x7f\\" for character in location):
        raise Forbidden(f"{shown(address)} redirects to an address with a control character or a backslash in it")
    location = quote(location.encode("latin-1"), safe=_PRINTABLE)  # the bytes as they came, said in ASCII
    if _SCHEME.match(location):  # urljoin would find a host for one that has none
        return location
    try:
        return urljoin(address, location)
    except ValueError as error:
        raise Forbidden(f"{shown(address)} redirects to something that is no address") from error


def _words(error: Exception) -> str:
    said = getattr(error, "strerror", None) or getattr(error, "verify_message", None) or str(error)
    return f"{said or type(error).__name__:.200}"
