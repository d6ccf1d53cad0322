"""A consumer with read-ahead and no safety at all: what the benchmark's own machinery allows, not for use.

It renews no lease, retries nothing, believes every message and forgets what fails.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import requests
from botocore.config import Config

if TYPE_CHECKING:
    from types_boto3_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef, MessageTypeDef

DELETE_WITHIN_S = 0.5
LOOK_AHEAD = 12
AT_THE_ENGINE = 2
"""Requests that the engine has: one renders, the next waits in its own queue."""


class Work(NamedTuple):
    """One task in hand."""

    receipt: str
    task_id: str
    path: str
    payload: dict[str, Any]


class Reference:
    """Threads around two queues, until `stop` is set."""

    def __init__(self, names: dict[str, str]) -> None:
        pool = Config(max_pool_connections=32)
        self._sqs = boto3.client("sqs", config=pool)
        self._dynamodb = boto3.client("dynamodb", config=pool)
        self._s3 = boto3.client("s3", config=pool)
        self._names = names
        self._ready: queue.Queue[Work] = queue.Queue(LOOK_AHEAD)
        self._finished: queue.Queue[str] = queue.Queue()
        self._side = ThreadPoolExecutor(8)
        self._key = "task_id"
        self.stop = threading.Event()

    def start(self) -> None:
        """Start the threads; all are daemons and end with the process."""
        for job in (self._receive, *(self._generate,) * AT_THE_ENGINE, self._delete):
            threading.Thread(target=job, daemon=True).start()

    def _receive(self) -> None:
        url = self._names["queue_url"]
        while not self.stop.is_set():
            answer = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for work in self._side.map(self._read, answer.get("Messages", ())):
                self._ready.put(work)

    def _read(self, message: MessageTypeDef) -> Work:
        body = json.loads(message["Body"])
        if "Message" in body:
            request = json.loads(body["Message"])
            payload, metadata = request["content"], request["metadata"]
            if name := payload.pop("alwayson_scripts", {}).get("sd_model_checkpoint"):
                payload["override_settings"] = {"sd_model_checkpoint": name}
            return Work(message["ReceiptHandle"], metadata["id"], "/sdapi/v1/txt2img", payload)
        if "taskId" not in body:
            payload = body["payload"]
            if name := body.get("checkpoint"):
                payload["override_settings"] = {"sd_model_checkpoint": name}
            return Work(message["ReceiptHandle"], body["task_id"], f"/sdapi/v1/{body['task_type']}", payload)
        self._key = "taskId"
        found = self._dynamodb.get_item(TableName=self._names["table"], Key={"taskId": {"S": body["taskId"]}})
        request = json.loads(found["Item"]["requestData"]["S"])
        return Work(message["ReceiptHandle"], body["taskId"], request["api"], request["payload"])

    def _generate(self) -> None:
        session = requests.Session()
        while True:
            work = self._ready.get()
            answer = session.post(self._names["engine_url"] + work.path, json=work.payload, timeout=60)
            self._side.submit(self._store, work, answer.json())

    def _store(self, work: Work, answer: dict[str, Any]) -> None:
        for number, picture in enumerate(answer["images"], 1):
            self._s3.put_object(
                Bucket=self._names["bucket"],
                Key=f"{work.task_id}-{number}.png",
                Body=base64.b64decode(picture),
                ContentType="image/png",
            )
        self._dynamodb.update_item(
            TableName=self._names["table"],
            Key={self._key: {"S": work.task_id}},
            UpdateExpression="SET #s = :s",
            ExpressionAttributeNames={"#s": "status" if self._key == "task_id" else "taskStatus"},
            ExpressionAttributeValues={":s": {"S": "completed" if self._key == "task_id" else "finished"}},
        )
        self._finished.put(work.receipt)

    def _delete(self) -> None:
        while True:
            receipts = [self._finished.get()]
            end_s = time.monotonic() + DELETE_WITHIN_S
            while len(receipts) < 10 and (left_s := end_s - time.monotonic()) > 0:
                try:
                    receipts.append(self._finished.get(timeout=left_s))
                except queue.Empty:
                    break
            entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                {"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)
            ]
            self._sqs.delete_message_batch(QueueUrl=self._names["queue_url"], Entries=entries)


def main() -> None:
    """Consume until SIGTERM; what is in hand then is left in flight."""
    prefix = "BENCH_"
    reference = Reference(
        {name.removeprefix(prefix).lower(): value for name, value in os.environ.items() if name.startswith(prefix)}
    )
    signal.signal(signal.SIGTERM, lambda *_: reference.stop.set())
    reference.start()
    reference.stop.wait()
    os._exit(0)


if __name__ == "__main__":
    main()
