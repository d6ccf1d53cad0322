"""The demo: a dozen tasks through the whole of local mode, watched to their ends, with a verdict."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from scheduler.domain.claiming import FINAL
from scheduler.session import Session
from scheduler.submission import submit

PROMPTS = (
    "a lighthouse at dusk, oil on canvas",
    "a red bicycle against a white wall",
    "mountains in morning fog",
    "a bowl of ramen, studio light",
    "an astronaut in a field of poppies",
    "a glass greenhouse in the snow",
    "a tram in the rain, neon",
    "a fox reading a newspaper",
)
BAD_SAMPLER = "No Such Sampler"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTask:
    """A task of the demo: its message, and whether it must complete or fail."""

    message: Mapping[str, Any]
    should_fail: bool = False

    @property
    def task_id(self) -> str:
        """The task's id, which says what it is."""
        return str(self.message["task_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one task ended: its record, and where its pictures lie on disk."""

    task: DemoTask
    record: Mapping[str, Any]
    files: tuple[Path, ...]

    @property
    def is_as_meant(self) -> bool:
        """Tell whether the good completed with pictures, and the bad failed with a reason."""
        status = self.record.get("status")
        if self.task.should_fail:
            return status == "failed" and BAD_SAMPLER in str(self.record.get("error_message"))
        return status == "completed" and bool(self.files)


def plan(run: str, checkpoints: Sequence[str]) -> list[DemoTask]:
    """Return a dozen tasks: txt2img and img2img over two checkpoints, one batch of four, one deliberately bad.

    `run` makes the ids new in each run.
    """
    tasks = []
    for n, prompt in enumerate(PROMPTS):
        payload = {
            "prompt": prompt,
            "steps": 12,
            "width": 512,
            "height": 512,
            "seed": 1000 + n,
            "sampler_name": "Euler a",
        }
        tasks.append(_task(run, f"txt2img-{n + 1}", "txt2img", payload, checkpoints[n % 2]))
    batch = {"prompt": "four moods of the sea", "steps": 12, "width": 384, "height": 384, "batch_size": 4, "seed": 7}
    tasks.append(_task(run, "batch-of-4", "txt2img", batch, checkpoints[0]))
    for n in (1, 2):
        payload = {
            "prompt": "the same in watercolour",
            "init_images": [_sketch(n)],
            "denoising_strength": 0.5,
            "steps": 12,
            "width": 512,
            "height": 384,
            "seed": n,
        }
        tasks.append(_task(run, f"img2img-{n}", "img2img", payload, checkpoints[n % 2]))
    bad = {"prompt": "this cannot be", "steps": 5, "sampler_name": BAD_SAMPLER}
    tasks.append(_task(run, "bad-sampler", "txt2img", bad, checkpoints[0], should_fail=True))
    return tasks


def _task(
    run: str, name: str, kind: str, payload: dict[str, Any], checkpoint: str, *, should_fail: bool = False
) -> DemoTask:
    message = {
        "task_id": f"{name}-{run}",
        "task_type": kind,
        "payload": payload,
        "checkpoint": checkpoint,
        "prefix": "demo",
    }
    return DemoTask(message=message, should_fail=should_fail)


def _sketch(n: int) -> str:
    """Return a simple picture to start from, as base64."""
    picture = Image.new("RGB", (512, 384), (238, 232, 213))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60 + 90 * n, 60, 200 + 90 * n, 200), fill=(203, 75, 22))
    draw.polygon([(0, 384), (180, 180), (340, 384)], fill=(38, 139, 210))
    draw.polygon([(200, 384), (400, 140 + 30 * n), (512, 384)], fill=(42, 161, 152))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def run(
    tasks: Sequence[DemoTask],
    session: Session,
    *,
    fetch: Callable[[str], bytes],
    folder: Path,
    show: Callable[[Mapping[str, Mapping[str, Any]]], None],
    limit_s: float,
) -> list[Outcome]:
    """Submit `tasks`, call `show` with their records until all have ended or `limit_s` is over, fetch the pictures.

    `fetch` returns the object under a key; pictures are written below `folder`.
    """
    for task in tasks:
        submit(task.message, records=session.records, send=session.send)
    ids = [task.task_id for task in tasks]
    end_s = time.monotonic() + limit_s
    records: Mapping[str, Mapping[str, Any]] = {}
    while time.monotonic() < end_s:
        records = session.records.read(ids)
        show(records)
        if all(records.get(task_id, {}).get("status") in FINAL for task_id in ids):
            break
        time.sleep(0.3)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Outcome(
            task=task,
            record=records.get(task.task_id, {}),
            files=tuple(
                _save(image["key"], fetch, folder) for image in records.get(task.task_id, {}).get("images", [])
            ),
        )
        for task in tasks
    ]


def _save(key: str, fetch: Callable[[str], bytes], folder: Path) -> Path:
    file = folder / key.removeprefix("demo/").replace("/", "-")
    file.write_bytes(fetch(key))
    return file
