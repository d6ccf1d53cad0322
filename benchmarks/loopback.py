"""What the benchmark's own servers share: a small HTTP/1.1 server on loopback and a leash to the parent process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

BUFFER_BYTES = 1 << 20
REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 422: "Unprocessable Entity", 502: "Bad Gateway"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; `fields` are the headers as sent, `headers` the same with names in lower case.

    `arrived_s` is when its head was complete, on CLOCK_MONOTONIC, which all processes of a machine share.
    """

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes
    arrived_s: float

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer; `parts` are written one after another, so that large bodies need no joining.

    `Content-Length` is computed unless `fields` has it (as an answer to HEAD must).
    """

    status: int = 200
    fields: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),)
    parts: Sequence[bytes] = ()


Handler = Callable[[Request], Awaitable[Reply]]


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return `value` as JSON."""
    return Reply(status=status, parts=(json.dumps(value).encode(),))


def split_head(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the first line and the header fields of an HTTP head."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, tuple((name, value.strip()) for name, _, value in pairs)


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """Return a body sent with `Transfer-Encoding: chunked`, without its trailer."""
    parts = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return b"".join(parts)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    arrived_s = time.monotonic()
    first, fields = split_head(head)
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value for name, value in fields}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = await read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method=method, target=target, fields=fields, headers=headers, body=body, arrived_s=arrived_s)


def _head(reply: Reply, *, keep: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in reply.fields]
    if not any(name.lower() == "content-length" for name, _ in reply.fields):
        lines.append(f"Content-Length: {sum(map(len, reply.parts))}")
    lines.append(f"Connection: {'keep-alive' if keep else 'close'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _converse(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        keep = True
        while keep:
            request = await _read(reader, writer)
            keep = request.headers.get("connection", "").lower() != "close"
            reply = await handler(request)
            writer.writelines((_head(reply, keep=keep), *reply.parts))
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass  # the client went away, which a killed consumer does
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _serve(handler: Handler) -> None:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(handler, reader, writer)

    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=BUFFER_BYTES, backlog=256)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(handler: Handler) -> None:
    """Serve on a free port, named on standard output, until the parent process is gone."""
    asyncio.run(_serve(handler))


def announce(port: int) -> None:
    """Tell the parent the port, and end this process when the parent's end of standard input closes."""

    def wait_for_parent() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait_for_parent, name="leash", daemon=True).start()
    print(port, flush=True)
