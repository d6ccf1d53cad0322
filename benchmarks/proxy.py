"""Stands before the AWS emulator: counts the calls by operation and makes each as slow as AWS is assumed to be.

An answer is held back until the assumed latency has passed since the request arrived, so that the emulator's own
time is part of the latency and not added to it. Where the emulator is slower, the excess is recorded as late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs

from benchmarks.loopback import BUFFER_BYTES, Reply, Request, json_reply, read_chunks, serve, split_head

LATENCY_MS = {"sqs": 12.0, "dynamodb": 6.0, "s3-put": 45.0, "s3-put-per-mb": 20.0, "other": 20.0}
"""What a client in the same region waits for an answer: assumed, and stated beside every table."""
PROGRESS, RECORDS = "/-/progress", "/-/records"
SQS_STEP_BYTES = 64 * 1024
TOKEN = re.compile(rb"bench-[0-9a-f]+-\d+")
SCOPE = re.compile(r"Credential=[^/,]+/\d{8}/[^/]+/([a-z0-9-]+)/aws4_request")
NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect", "content-length"}
UPLOADS = {"PutObject", "UploadPart"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One AWS call; `units` are what is billed for: 64 KB steps of SQS, items of DynamoDB (twice in a transaction).

    `filled` tells of a receive that it brought messages.
    """

    arrived_s: float
    answered_s: float
    service: str
    operation: str
    status: int
    units: float
    late_s: float
    filled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image that S3 took: where, and the token in its text, which names the task."""

    stored_s: float
    path: str
    token: str | None


def identify(request: Request) -> tuple[str, str]:
    """Return (service, operation) of a signed AWS request."""
    signed = SCOPE.search(request.headers.get("authorization", ""))
    service = signed.group(1) if signed else "other"
    if target := request.headers.get("x-amz-target"):
        return service, target.rpartition(".")[2]
    if service != "s3":
        action = parse_qs(request.body[:4096].decode("latin-1")).get("Action")
        return service, action[0] if action else request.method
    path, _, query = request.target.partition("?")
    if "partNumber=" in query:
        return service, "UploadPart"
    has_key = "/" in path.strip("/")
    if request.method == "GET" and not has_key:
        return service, "ListObjects"
    return service, request.method.capitalize() + ("Object" if has_key else "Bucket")


def billed_units(service: str, operation: str, body: bytes) -> float:
    """Return how many requests (SQS, S3) or items (DynamoDB) of full consistency one call is billed as."""
    if service == "sqs":
        return max(1, math.ceil(len(body) / SQS_STEP_BYTES))
    if service != "dynamodb" or not body.startswith(b"{"):
        return 1
    request: dict[str, Any] = json.loads(body)
    match operation:
        case "GetItem" | "Query" | "Scan":
            return _read_share(request)
        case "BatchGetItem":
            return sum(len(table["Keys"]) * _read_share(table) for table in request["RequestItems"].values())
        case "BatchWriteItem":
            return sum(map(len, request["RequestItems"].values()))
        case "TransactWriteItems" | "TransactGetItems":
            return 2 * len(request["TransactItems"])
        case _:
            return 1


def _read_share(request: dict[str, Any]) -> float:
    return 1 if request.get("ConsistentRead") else 0.5


class Proxy:
    """Forwards to the emulator's port, keeping every call and every image in memory until it is asked."""

    def __init__(self, upstream_port: int, latency_ms: dict[str, float]) -> None:
        self._upstream_port = upstream_port
        self._latency_ms = latency_ms
        self._calls: list[Call] = []
        self._images: list[Image] = []
        self._seen: set[str] = set()
        self._has_started = False

    async def handle(self, request: Request) -> Reply:
        """Answer a question of the benchmark's own, or forward, delay and record a call."""
        if request.path == PROGRESS:
            return json_reply({"images": len(self._seen), "started": self._has_started})
        if request.path == RECORDS:
            return json_reply(
                {"calls": [asdict(call) for call in self._calls], "images": [asdict(i) for i in self._images]}
            )
        service, operation = identify(request)
        reply = await self._forward(request)
        is_receive = operation == "ReceiveMessage"
        spare_s = request.arrived_s + self._latency_s(service, operation, len(request.body)) - time.monotonic()
        if spare_s > 0:
            await asyncio.sleep(spare_s)
        filled = is_receive and any(b'"Messages"' in part or b"<Message>" in part for part in reply.parts)
        self._has_started = self._has_started or filled
        call = Call(
            arrived_s=request.arrived_s,
            answered_s=time.monotonic(),
            service=service,
            operation=operation,
            status=reply.status,
            units=billed_units(service, operation, request.body),
            late_s=0.0 if is_receive else max(0.0, -spare_s),  # a long poll may wait
            filled=filled,
        )
        self._calls.append(call)
        if service == "s3" and operation in UPLOADS and reply.status == 200:
            self._note_image(request, call.answered_s)
        return reply

    def _latency_s(self, service: str, operation: str, size_bytes: int) -> float:
        if service == "s3" and operation in UPLOADS:
            return (self._latency_ms["s3-put"] + self._latency_ms["s3-put-per-mb"] * size_bytes / 1e6) / 1000
        return self._latency_ms.get(service, self._latency_ms["other"]) / 1000

    def _note_image(self, request: Request, stored_s: float) -> None:
        start = request.body[:4096]  # with some clients a chunk's head stands before the picture
        if b"\x89PNG" not in start and not request.headers.get("content-type", "").startswith("image/"):
            return
        found = TOKEN.search(start)
        token = found.group().decode() if found else None
        self._images.append(Image(stored_s=stored_s, path=request.path, token=token))
        self._seen.add(token or request.path)

    async def _forward(self, request: Request) -> Reply:
        kept = [(name, value) for name, value in request.fields if name.lower() not in NOT_FORWARDED]
        kept += [("Content-Length", str(len(request.body))), ("Connection", "close")]
        head = f"{request.method} {request.target} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in kept) + "\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=BUFFER_BYTES)
            try:
                writer.writelines((head.encode("latin-1"), request.body))
                return await _read_answer(reader, request.method)
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            return json_reply({"message": f"the emulator did not answer: {error}"}, 502)


async def _read_answer(reader: asyncio.StreamReader, method: str) -> Reply:
    """Read to the end of the body and not of the connection, which the emulator keeps open for 10 ms more."""
    first, fields = split_head(await reader.readuntil(b"\r\n\r\n"))
    headers = {name.lower(): value for name, value in fields}
    kept = [(name, value) for name, value in fields if name.lower() not in NOT_FORWARDED]
    body = b""
    if method == "HEAD":
        kept.append(("Content-Length", headers.get("content-length", "0")))
    elif "chunked" in headers.get("transfer-encoding", ""):
        body = await read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(status=int(first.split(" ")[1]), fields=kept, parts=(body,))


def main() -> None:
    """Serve until the parent process is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--latency", type=json.loads, default={}, help=f"JSON, changes to {LATENCY_MS}")
    given = parser.parse_args()
    serve(Proxy(given.upstream_port, LATENCY_MS | given.latency).handle)


if __name__ == "__main__":
    main()
