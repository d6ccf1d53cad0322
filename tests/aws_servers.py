"""Emulated AWS for tests: moto's server and ministack, each a process on loopback, and what tests make in them.

Run as a program it *is* such a server: ``python aws_servers.py moto`` prints its port and serves until its standard
input closes, so that no server outlives the tests that started it, however they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import boto3
import pytest
from botocore.config import Config

from scheduler.aws import clients as aws_clients
from scheduler.aws.clients import Clients
from scheduler.stores.tasks import INDEX

REGION = "us-east-1"
NOWHERE = "http://127.0.0.1:1"
"""An endpoint that refuses every connection."""


def aws_environ(url: str) -> dict[str, str]:
    """Return the variables that send every AWS call of a process to `url` and nowhere else."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeQueue:
    """A queue made for one test, and its dead-letter queue if it has one."""

    name: str
    url: str
    dlq_name: str | None
    dlq_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """One emulator and the scheduler's own clients for it; every resource gets a name that no other test uses."""

    name: str
    url: str
    clients: Clients

    @property
    def environ(self) -> dict[str, str]:
        """The AWS variables for a process that is to use this emulator."""
        return aws_environ(self.url)

    def queue(self, *, visibility_s: int = 30, dlq: bool = True, max_receives: int = 50) -> MadeQueue:
        name = unique("tasks")
        attributes: dict[Any, str] = {"VisibilityTimeout": str(visibility_s)}
        dlq_name = dlq_url = None
        if dlq:
            dlq_name = f"{name}-dlq"
            dlq_url = self.clients.sqs.create_queue(QueueName=dlq_name)["QueueUrl"]
            asked = self.clients.sqs.get_queue_attributes(QueueUrl=dlq_url, AttributeNames=["QueueArn"])
            arn = asked["Attributes"]["QueueArn"]
            attributes["RedrivePolicy"] = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "{max_receives}"}}'
        url = self.clients.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return MadeQueue(name=name, url=url, dlq_name=dlq_name, dlq_url=dlq_url)

    def table(self, *, key_name: str = "task_id") -> str:
        name = unique("records")
        self.clients.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key_name, "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": key_name, "AttributeType": "S"},
                {"AttributeName": "status", "AttributeType": "S"},
                {"AttributeName": "created_at", "AttributeType": "N"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": INDEX,
                    "KeySchema": [
                        {"AttributeName": "status", "KeyType": "HASH"},
                        {"AttributeName": "created_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
        )
        return name

    def bucket(self) -> str:
        name = unique("pictures")
        self.clients.s3.create_bucket(Bucket=name)
        return name


def unique(kind: str) -> str:
    """Return a name for a resource of `kind` that no other test has."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


@contextlib.contextmanager
def clients_for(url: str, *, threads: int = 16) -> Iterator[Clients]:
    """Build the scheduler's clients against `url`; close their connections at the end."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environ(url).items():
            patch.setenv(name, value)
        built = aws_clients.build(REGION, poll_interval_s=5, threads=threads, topic_region=REGION)
    try:
        yield built
    finally:
        for field in fields(built):
            getattr(built, field.name).close()


@contextlib.contextmanager
def one_attempt_client(service: Any, url: str) -> Iterator[Any]:
    """Build a client that gives up at once, for tests of what failures look like."""
    client = boto3.Session(region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing").client(
        service,
        endpoint_url=url,
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"mode": "standard", "total_max_attempts": 1},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def running(name: str) -> Iterator[Cloud]:
    """Start the emulator `name` (moto or ministack) in a process of its own; stop it at the end."""
    environ: Mapping[str, str] = os.environ | aws_environ(NOWHERE)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, __file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environ
        ) as process,
    ):
        try:
            port = process.stdout.readline().strip() if process.stdout else b""
            if not port:
                said.seek(0)
                raise RuntimeError(f"{name} did not start: {said.read().decode(errors='replace')[-2000:]}")
            url = f"http://127.0.0.1:{int(port)}"
            with clients_for(url) as built:
                built.sqs.list_queues()
                yield Cloud(name=name, url=url, clients=built)
        finally:
            process.kill()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _serve_moto() -> None:
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    from scheduler.local.emulator import make_updates_atomic

    make_updates_atomic()
    logging.getLogger("werkzeug").disabled = True  # a line for each request, read by nobody
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201 - the parent reads it
    threading.Event().wait()


def _serve_ministack() -> None:
    """Serve on a socket that is bound before ministack is told its port, so that nobody can take it meanwhile."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listening.getsockname()[1]
    os.environ |= {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",  # else it opens an MQTT port on every interface
        "LOG_LEVEL": "ERROR",
    }
    from hypercorn.asyncio import serve
    from hypercorn.config import Config as ServerConfig
    from ministack.app import app

    config = ServerConfig()
    config.bind = [f"fd://{listening.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    print(port, flush=True)  # noqa: T201 - the parent reads it; connections wait in the backlog
    asyncio.run(serve(app, config))


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    {"moto": _serve_moto, "ministack": _serve_ministack}[sys.argv[1]]()
