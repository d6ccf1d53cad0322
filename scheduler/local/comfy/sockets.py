"""The server's end of websockets (RFC 6455): the handshake's answer, frames in and out, and who is connected."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
from contextlib import suppress
from io import BufferedIOBase
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept(key: str) -> str:
    """Return the answer to a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324 - the protocol's choice


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole, unmasked frame, as servers send them."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + payload


class Link:
    """One connection to a client."""

    def __init__(self, stream: BufferedIOBase, connection: socket.socket) -> None:
        self._stream = stream
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame; a client that is gone hears nothing."""
        with self._sending, suppress(OSError):
            self._connection.sendall(frame(opcode, payload))

    def cut(self) -> None:
        """End the connection without a word."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Answer pings until the client goes."""
        while (received := self._read()) is not None:
            opcode, payload = received
            if opcode == PING:
                self.send(PONG, payload)
            elif opcode == CLOSE:
                self.send(CLOSE, payload)
                return

    def _read(self) -> tuple[int, bytes] | None:
        try:
            first, second = self._exactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._exactly(8))
            mask = self._exactly(4) if second & 0x80 else bytes(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._exactly(size)))
        except (OSError, EOFError):
            return None
        return first & 0x0F, payload

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        return data


class Hub:
    """The clients by their ids; one that comes again takes the place of its former connection. Safe for threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._links: dict[str, Link] = {}

    def join(self, client_id: str, link: Link) -> None:
        """Take in a client."""
        with self._guard:
            self._links[client_id] = link

    def leave(self, client_id: str, link: Link) -> None:
        """Forget a connection, unless the client has another by now."""
        with self._guard:
            if self._links.get(client_id) is link:
                del self._links[client_id]

    def cut(self, client_id: str | None) -> None:
        """Cut a client off."""
        link = self._of(client_id)
        if link is not None:
            link.cut()

    def tell(self, client_id: str | None, kind: str, data: dict[str, Any]) -> None:
        """Send an event to one client, if it is there."""
        link = self._of(client_id)
        if link is not None:
            link.send(TEXT, event(kind, data))

    def tell_all(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event to everybody."""
        with self._guard:
            links = list(self._links.values())
        for link in links:
            link.send(TEXT, event(kind, data))

    def show(self, client_id: str | None, payload: bytes) -> None:
        """Send a binary event to one client."""
        link = self._of(client_id)
        if link is not None:
            link.send(BINARY, payload)

    def _of(self, client_id: str | None) -> Link | None:
        with self._guard:
            return self._links.get(client_id) if client_id is not None else None


def event(kind: str, data: dict[str, Any]) -> bytes:
    """Return an event as it goes over the wire."""
    return json.dumps({"type": kind, "data": data}).encode()
