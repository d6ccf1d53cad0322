"""One queue, table and bucket of a test's own: what is sent, what came of it, and what must hold at every end."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aws_servers import REGION, Cloud, MadeQueue, unique
from orders import CHECKPOINT, SIZE, graph
from PIL import Image
from waiting import until

from scheduler.domain.clock import SystemClock
from scheduler.local.comfy.process import ComfyProcess
from scheduler.local.standin import painter
from scheduler.local.standin.process import StandinProcess
from scheduler.stores.expressions import decode
from scheduler.stores.submitted_tasks import SubmittedTasks
from scheduler.submission import submit

Engines = Callable[..., StandinProcess]
"""The fixture `engine`."""
Comfys = Callable[..., ComfyProcess]
"""The fixture `comfy`."""
LEASE_S = 5
COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a task must have come to: so many pictures of this prompt, seeds counted up from `seed`.

    A graph names one seed for all of them, and its pictures say nothing of themselves: they are known by what they
    show.
    """

    prompt: str
    seed: int
    images: int = 1
    is_graph: bool = False


@dataclass(slots=True)
class World:
    """Where the tasks of one test live."""

    cloud: Cloud
    folder: Path
    queue: MadeQueue
    table: str
    bucket: str
    wishes: dict[str, Wish] = field(default_factory=dict)

    @classmethod
    def made(cls, cloud: Cloud, folder: Path, *, visibility_s: int = LEASE_S) -> World:
        """Make an empty one."""
        queue = cloud.queue(visibility_s=visibility_s)
        return cls(cloud, folder, queue, cloud.table(), cloud.bucket())

    def conf(
        self,
        *engine_urls: str,
        name: str = "conf",
        sd_api: str = "",
        engines: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
        **scheduler: object,
    ) -> Path:
        """Write a conf.ini with the defaults but for what a test cannot wait for.

        `engine_urls` are WebUIs; `engines` are the lines of [engines], `inputs` those of [inputs].
        """
        settings = {"poll_interval": 1, "health_port": 0} | scheduler
        path = self.folder / f"{name}.ini"
        path.write_text(
            f"[aws]\naws_region = {REGION}\nsqs_queue_url = {self.queue.name}\ndynamodb_table = {self.table}\n"
            f"s3_bucket = {self.bucket}\n"
            + (f"[sd_api]\nsd_api_base_url = {', '.join(engine_urls)}\n{sd_api}\n" if engine_urls else "")
            + _section("engines", engines or {})
            + _section("inputs", inputs or {})
            + _section("scheduler", settings)
        )
        return path

    # sending

    def task(
        self,
        prompt: str,
        *,
        seed: int = 1,
        steps: int = 1,
        batch: int = 1,
        checkpoint: str | None = None,
        size: int = 64,
    ) -> dict[str, Any]:
        """Return a message in our own format, and remember what is to come of it."""
        message: dict[str, Any] = {
            "task_id": unique("task"),
            "task_type": "txt2img",
            "payload": {
                "prompt": prompt, "seed": seed, "steps": steps, "width": size, "height": size, "batch_size": batch,
            },
        }  # fmt: skip
        if checkpoint:
            message["checkpoint"] = checkpoint
        self.wishes[message["task_id"]] = Wish(prompt=prompt, seed=seed, images=batch)
        return message

    def graph(self, prompt: str, *, seed: int = 7, steps: int = 1, batch: int = 1) -> dict[str, Any]:
        """Return a message in our own format with a graph for ComfyUI, and remember what is to come of it."""
        payload = {"prompt": graph(prompt, seed=seed, steps=steps, batch=batch)}
        message = {"task_id": unique("graph"), "task_type": "pipeline", "payload": payload}
        self.wishes[message["task_id"]] = Wish(prompt=prompt, seed=seed, images=batch, is_graph=True)
        return message

    def send(self, *bodies: str | Mapping[str, Any]) -> None:
        """Send messages as they are."""
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self.cloud.clients.sqs.send_message(QueueUrl=self.queue.url, MessageBody=text)

    def send_task(self, prompt: str, **more: Any) -> str:
        """Send one task, as a client does that writes no record; return its id."""
        message = self.task(prompt, **more)
        self.send(message)
        return str(message["task_id"])

    def send_graph(self, prompt: str, **more: Any) -> str:
        """Send one graph likewise."""
        message = self.graph(prompt, **more)
        self.send(message)
        return str(message["task_id"])

    def submit(self, prompt: str, **more: Any) -> str:
        """Record and send one task, as the command line does; return its id."""
        return self._submit(self.task(prompt, **more))

    def submit_graph(self, prompt: str, **more: Any) -> str:
        """Record and send one graph likewise."""
        return self._submit(self.graph(prompt, **more))

    def _submit(self, message: Mapping[str, Any]) -> str:
        submit(message, records=self.store(), send=self.send)
        return str(message["task_id"])

    def refer(self, prompt: str, *, seed: int = 1, steps: int = 1) -> str:
        """Write a record of the predecessor's and send its reference; return its id."""
        task_id = unique("old")
        payload = {"prompt": prompt, "seed": seed, "steps": steps, "width": 64, "height": 64}
        request = json.dumps({"api": "/sdapi/v1/txt2img", "payload": payload})
        item = {"task_id": task_id, "taskId": task_id, "requestData": request, "taskStatus": "waiting"}
        self.cloud.clients.dynamodb.put_item(TableName=self.table, Item={k: {"S": v} for k, v in item.items()})
        self.send({"taskId": task_id, "storage": "dynamodb"})
        self.wishes[task_id] = Wish(prompt=prompt, seed=seed)
        return task_id

    def store(self) -> SubmittedTasks:
        """Return the table as the scheduler's own tools see it."""
        dynamodb = self.cloud.clients.dynamodb
        return SubmittedTasks(dynamodb, self.table, key_name="task_id", clock=SystemClock(), record_ttl_days=90)

    # looking

    def records(self) -> dict[str, dict[str, Any]]:
        """Return all records, read consistently."""
        found: dict[str, dict[str, Any]] = {}
        pages = self.cloud.clients.dynamodb.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        for page in pages:
            found |= {record["task_id"]: record for record in map(decode, page["Items"])}
        return found

    def record(self, task_id: str) -> dict[str, Any]:
        """Return one record, empty if there is none."""
        return dict(self.store().read([task_id]).get(task_id, {}))

    def status(self, task_id: str) -> str | None:
        """Return the status in a task's record, if it has one."""
        return self.record(task_id).get("status")

    def statuses(self) -> Counter[str]:
        """Return how many records have which status."""
        return Counter(str(record.get("status")) for record in self.records().values())

    def counts(self, url: str | None = None) -> tuple[int, int]:
        """Return how many messages are to be had, now or later, and how many are in flight."""
        asked = self.cloud.clients.sqs.get_queue_attributes(QueueUrl=url or self.queue.url, AttributeNames=[*COUNTS])  # type: ignore[list-item]
        waiting, flying, delayed = (int(asked["Attributes"].get(name, 0)) for name in COUNTS)  # type: ignore[call-overload]
        return waiting + delayed, flying

    def dead_letters(self) -> list[dict[str, Any]]:
        """Take everything out of the dead-letter queue: body, and reasons."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.cloud.clients.sqs.receive_message(
                QueueUrl=str(self.queue.dlq_url), MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            messages = answer.get("Messages", [])
            if not messages:
                return found
            for message in messages:
                reasons = {n: v.get("StringValue") for n, v in message.get("MessageAttributes", {}).items()}
                found.append({"body": message["Body"]} | reasons)
                self.cloud.clients.sqs.delete_message(
                    QueueUrl=str(self.queue.dlq_url), ReceiptHandle=message["ReceiptHandle"]
                )

    def object_keys(self) -> list[str]:
        """Return the keys of everything in the bucket."""
        pages = self.cloud.clients.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def picture(self, key: str) -> bytes:
        """Return an object's bytes."""
        return self.cloud.clients.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    # waiting and judging

    def until_status(self, status: str, *task_ids: str, deadline_s: float = 30.0) -> None:
        """Return when all these tasks have this status."""
        until(
            lambda: all(self.status(task_id) == status for task_id in task_ids),
            deadline_s,
            what=f"{status} for {task_ids}",
        )

    def until_done(self, deadline_s: float = 60.0) -> None:
        """Return when every wish has a final record and no message is left."""

        def done() -> bool:
            if self.counts() != (0, 0):
                return False
            records = self.records()
            finals = {"completed", "failed", "cancelled"}
            return all(records.get(task_id, {}).get("status") in finals for task_id in self.wishes)

        try:
            until(done, deadline_s, what="the end of all work", every_s=0.2)
        except AssertionError as error:
            records = self.records()
            open_ones = {t: records.get(t) for t in self.wishes if records.get(t, {}).get("status") != "completed"}
            error.add_note(f"messages {self.counts()}, records {self.statuses()}, open: {open_ones}")
            raise

    def assert_all_completed(self) -> None:
        """Check that every wish came true once, pictures included, and that nothing else lies anywhere."""
        self.assert_completed(self.wishes)
        assert self.counts() == (0, 0)
        assert set(self.records()) == set(self.wishes)
        assert self.counts(self.queue.dlq_url) == (0, 0)
        self.assert_no_orphans()

    def assert_no_orphans(self) -> None:
        """Check that every object in the bucket is listed in exactly one record, and every listed one is there."""
        listed = Counter(image["key"] for record in self.records().values() for image in record.get("images", ()))
        assert listed == Counter(self.object_keys())

    def assert_completed(self, task_ids: Iterable[str]) -> None:
        """Check that these tasks completed with the right pictures."""
        records = self.records()
        for task_id in task_ids:
            record, wish = records[task_id], self.wishes[task_id]
            assert record["status"] == "completed", record
            assert "lease_until" not in record, "a final record has no lease"
            assert len(record["images"]) == wish.images, record
            for n, image in enumerate(record["images"]):
                if wish.is_graph:
                    assert image["seed"] == wish.seed
                    self._assert_made_by_graph(image, wish.prompt, wish.seed + n)
                else:
                    assert image["seed"] == wish.seed + n
                    self._assert_painted(image, wish.prompt, wish.seed + n)

    def _assert_painted(self, image: Mapping[str, Any], prompt: str, seed: int) -> None:
        data = self.picture(image["key"])
        assert len(data) == image["bytes"]
        with Image.open(io.BytesIO(data)) as picture:
            words = str(picture.info["parameters"]).splitlines()
            assert picture.size == (image["width"], image["height"])
        assert words[0] == prompt
        assert f"Seed: {seed}," in words[-1]

    def _assert_made_by_graph(self, image: Mapping[str, Any], prompt: str, seed: int) -> None:
        with Image.open(io.BytesIO(self.picture(image["key"]))) as picture:
            wanted = painter.paint(prompt, seed, CHECKPOINT, SIZE)
            assert picture.convert("RGB").tobytes() == wanted.convert("RGB").tobytes(), image


def _section(name: str, settings: Mapping[str, object]) -> str:
    """Return a section of conf.ini, nothing for one without settings."""
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()) if settings else ""
