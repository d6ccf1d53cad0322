"""A websocket to ComfyUI that opens again when it breaks; it reads no event and trusts none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog
import websocket
from websocket import WebSocket, WebSocketException, WebSocketTimeoutException

from scheduler.domain.ports import Clock

log = structlog.get_logger()
CONNECT_TIMEOUT_S = 2.0
REOPEN_EVERY_S = 1.0


class EventSocket:
    """One client's events. For one thread; without a connection it is silent, and nothing worse."""

    def __init__(self, url: str, *, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._url = url
        self._clock = clock
        self._sleep = sleep
        self._socket: WebSocket | None = None
        self._tried_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as known."""
        return self._socket is not None

    def open(self) -> None:
        """Connect, unless that was tried just now; events before that are never heard."""
        now = self._clock.monotonic()
        if self._socket is not None or (self._tried_s is not None and now - self._tried_s < REOPEN_EVERY_S):
            return
        is_first, self._tried_s = self._tried_s is None, now
        try:
            self._socket = websocket.create_connection(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                suppress_origin=True,  # the engine refuses an origin that is not its own
                http_no_proxy=["*"],
                skip_utf8_validation=True,
            )
        except (OSError, WebSocketException, ValueError) as error:
            if is_first:
                log.info("engine_events_unheard", why=str(error))

    def next(self, timeout_s: float) -> str | bytes | None:
        """Return the next frame: text, or bytes; None when none came in time, or the connection broke."""
        self.open()
        if self._socket is None:
            self._sleep(timeout_s)
            return None
        try:
            self._socket.settimeout(max(timeout_s, 0.001))  # 0 would mean not to wait for the rest of a frame
            opcode, data = self._socket.recv_data()
        except WebSocketTimeoutException:
            return None
        except (OSError, WebSocketException):
            self.close()
            return None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            self.close()
            return None
        if opcode == websocket.ABNF.OPCODE_TEXT:
            return bytes(data).decode("utf-8", "replace")
        return bytes(data)

    def close(self) -> None:
        """Hang up, without the farewell for which the engine would have to be there."""
        if self._socket is not None:
            with suppress(OSError, WebSocketException):
                self._socket.shutdown()  # type: ignore[no-untyped-call]  # the library leaves this one out
            self._socket = None
