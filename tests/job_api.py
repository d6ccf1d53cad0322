"""The job API as tests see it: a stand-in over an emulated bucket, a client without opinions,
a picture to start from.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from aws_servers import Cloud
from PIL import Image

from scheduler.domain.errors import Rejected
from scheduler.domain.ports import InputImage
from scheduler.domain.task import Task, TaskType
from scheduler.local.jobapi.process import JobApiOptions, JobApiProcess

CAMERA, EDIT = "/api/v1/camera-angle/jobs", "/api/v1/qwen-image-edit/jobs"
DEADLINE_S = 60.0


class JobApi:
    """One stand-in and the bucket behind it."""

    def __init__(self, cloud: Cloud, **options: Any) -> None:
        self.cloud = cloud
        self.bucket = cloud.bucket()
        self.standin = JobApiProcess(JobApiOptions(bucket=self.bucket, s3_endpoint=cloud.url, **options))
        self.image_url = self.upload("in.png", png())

    def upload(self, key: str, data: bytes) -> str:
        self.cloud.clients.s3.put_object(Bucket=self.bucket, Key=key, Body=data)
        return f"s3://{self.bucket}/{key}"

    def fetch(self, uri: str) -> Image.Image:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with self.cloud.clients.s3.get_object(Bucket=bucket, Key=key)["Body"] as body:
            image = Image.open(io.BytesIO(body.read()))
        image.load()
        return image

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.standin.base_url + path, timeout=DEADLINE_S, **more)

    def body(self, **changed: Any) -> dict[str, Any]:
        return {"image_url": self.image_url, "prompt": "from the left", "seed": 1, "steps": 1} | changed

    def posts(self) -> int:
        requests_so_far = self.standin.stats()["requests"]
        return sum(count for path, count in requests_so_far.items() if path in {f"POST {CAMERA}", f"POST {EDIT}"})

    def ended(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = {}

        def is_over() -> bool:
            answer.update(self.ask("GET", f"/api/v1/jobs/{job_id}").json())
            return answer["status"] in {"completed", "failed"}

        until(is_over)
        return answer


@contextmanager
def started(cloud: Cloud, **options: Any) -> Iterator[JobApi]:
    api = JobApi(cloud, **({"seconds_per_step": 0.01} | options))
    with api.standin:
        yield api


class AnyInputs:
    """The `Inputs` port: every address is a picture, but for those that contain "forbidden"."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def image(self, address: str, *, field: str) -> InputImage:
        self.asked.append((field, address))
        if "forbidden" in address:
            raise Rejected(f"{field} may not be fetched", field=field)
        return InputImage(data=png(), media_type="image/png", extension=".png", width=8, height=8, sha256="0" * 64)


def task_of(payload: dict[str, Any], api_path: str | None = CAMERA) -> Task:
    return Task(task_id="t", task_type=TaskType.PIPELINE, payload=payload, fingerprint="f", api_path=api_path)


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 40, 40)).save(out, "PNG")
    return out.getvalue()


def until(true: Callable[[], bool], *, within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)
