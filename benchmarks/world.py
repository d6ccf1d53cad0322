"""The emulated world of one run: emulator, proxy and engine as processes, with queue, table and bucket inside."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from benchmarks import engine, proxy
from benchmarks.scenarios import Scenario
from benchmarks.tasks import Letter, MessageFormat

ROOT = Path(__file__).resolve().parent.parent
REGION, ACCOUNT = "us-east-1", "123456789012"
QUEUE, DEAD_LETTERS, TABLE, BUCKET = "bench-tasks", "bench-tasks-dlq", "bench-tasks", "bench-images"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "no-secret"}
TOKEN = re.compile(r"bench-[0-9a-f]+-\d+")
VISIBLE, IN_FLIGHT = "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"


def get_json(url: str) -> Any:
    """Return what a server of the benchmark's own answers."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)


class World:
    """Fresh for every run; the benchmark's own AWS calls go past the proxy, so they are neither counted nor slow."""

    def __init__(
        self,
        scenario: Scenario,
        message_format: MessageFormat,
        latency_ms: Mapping[str, float],
        log: Path,
        *,
        emulator: str = "moto",
    ) -> None:
        self._server = emulator
        self._scenario = scenario
        self._format = message_format
        self._latency_ms = latency_ms
        self._log = log
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            errors = stack.enter_context(self._log.open("ab"))
            emulator_port = self._spawn(stack, errors.fileno(), "emulator", self._server)
            proxy_port = self._spawn(
                stack,
                errors.fileno(),
                "proxy",
                f"--upstream-port={emulator_port}",
                f"--latency={json.dumps(dict(self._latency_ms))}",
            )
            engine_port = self._spawn(
                stack,
                errors.fileno(),
                "engine",
                f"--render-s={self._scenario.render_s}",
                f"--switch-s={self._scenario.switch_s}",
            )
            self._emulator = f"http://127.0.0.1:{emulator_port}"
            self.endpoint_url = f"http://127.0.0.1:{proxy_port}"
            self.engine_url = f"http://127.0.0.1:{engine_port}"
            self._create(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def queue_url(self) -> str:
        """The queue as the consumer sees it."""
        return f"{self.endpoint_url}/{ACCOUNT}/{QUEUE}"

    def names(self) -> dict[str, str]:
        """Return what a consumer's command may name in braces."""
        return {
            "python": sys.executable,
            "queue_url": self.queue_url,
            "table": TABLE,
            "bucket": BUCKET,
            "region": REGION,
            "endpoint_url": self.endpoint_url,
            "engine_url": self.engine_url,
        }

    def environment(self) -> dict[str, str]:
        """Return a consumer's whole environment: credentials, endpoint, and every name as BENCH_NAME."""
        own = {f"BENCH_{name.upper()}": value for name, value in self.names().items()}
        aws = {"AWS_ENDPOINT_URL": self.endpoint_url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "AWS_EC2_METADATA_DISABLED": "true"} | (
            CREDENTIALS | aws | own
        )

    def write_conf(self, path: Path) -> None:
        """Write the scheduler's configuration: what is of this world, and its defaults for all the rest."""
        path.write_text(
            f"[aws]\naws_region = {REGION}\nsqs_queue_url = {self.queue_url}\ndynamodb_table = {TABLE}\n"
            f"s3_bucket = {BUCKET}\n\n[sd_api]\nsd_api_base_url = {self.engine_url}\n\n[scheduler]\nhealth_port = 0\n"
        )

    def send(self, letters: Iterable[Letter]) -> None:
        """Put the items into the table and the messages into the queue."""
        for letter in letters:
            if letter.item:
                item = {name: {"S": value} for name, value in letter.item.items()}
                self._dynamodb.put_item(TableName=TABLE, Item=item)
            traced = {"AWSTraceHeader": {"DataType": "String", "StringValue": letter.trace}} if letter.trace else {}
            self._sqs.send_message(
                QueueUrl=self._own_url(QUEUE), MessageBody=letter.body, MessageSystemAttributes=traced
            )

    def queued(self) -> tuple[int, int]:
        """Return how many messages are visible and how many in flight."""
        answer = self._sqs.get_queue_attributes(QueueUrl=self._own_url(QUEUE), AttributeNames=[VISIBLE, IN_FLIGHT])
        return int(answer["Attributes"][VISIBLE]), int(answer["Attributes"][IN_FLIGHT])

    def dead_letters(self) -> list[str]:
        """Take the bodies out of the dead-letter queue."""
        bodies: list[str] = []
        while messages := self._sqs.receive_message(
            QueueUrl=self._own_url(DEAD_LETTERS), MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            bodies += [message["Body"] for message in messages]
        return bodies

    def items(self) -> list[dict[str, Any]]:
        """Return the table's items in DynamoDB's own notation."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=TABLE)
        return [item for page in pages for item in page["Items"]]

    def set_aside(self) -> list[str]:
        """Return the text of what lies in the bucket and is no image: messages kept by a consumer without a DLQ."""
        listed = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [entry["Key"] for page in listed for entry in page.get("Contents", ())]
        texts = [key for key in keys if key.endswith((".json", ".txt"))]
        return [self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode(errors="replace") for key in texts]

    def progress(self) -> dict[str, Any]:
        """Return how many images are stored and whether a message was received: cheap, asked often."""
        answer: dict[str, Any] = get_json(self.endpoint_url + proxy.PROGRESS)
        return answer

    def records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return everything that proxy and engine saw."""
        return get_json(self.endpoint_url + proxy.RECORDS), get_json(self.engine_url + engine.RECORDS)

    def _spawn(self, stack: ExitStack, errors: int, module: str, *arguments: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            cwd=ROOT,
            env=os.environ | CREDENTIALS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        stack.enter_context(process)  # closes its pipes and waits for it
        stack.callback(process.kill)
        port = process.stdout.readline() if process.stdout else b""
        if not port:
            raise RuntimeError(f"benchmarks.{module} did not start; see {self._log}")
        return int(port)

    def _create(self, stack: ExitStack) -> None:
        def client(service: str) -> Any:
            made = boto3.client(  # type: ignore[call-overload]  # one function for three services
                service,
                endpoint_url=self._emulator,
                region_name=REGION,
                aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
                config=Config(s3={"addressing_style": "path"}),
            )
            stack.callback(made.close)
            return made

        self._sqs, self._dynamodb, self._s3 = client("sqs"), client("dynamodb"), client("s3")
        self._sqs.create_queue(QueueName=DEAD_LETTERS)
        redrive = {
            "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{DEAD_LETTERS}",
            "maxReceiveCount": self._scenario.max_receives,
        }
        attributes = {"VisibilityTimeout": str(self._scenario.visibility_s), "RedrivePolicy": json.dumps(redrive)}
        self._sqs.create_queue(QueueName=QUEUE, Attributes=attributes)
        self._dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": self._format.table_key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": self._format.table_key, "AttributeType": "S"}],
        )
        self._s3.create_bucket(Bucket=BUCKET)

    def _own_url(self, queue: str) -> str:
        return f"{self._emulator}/{ACCOUNT}/{queue}"
