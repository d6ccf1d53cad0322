"""How a task ended, as others are told of it, and how a record tells it; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.claiming import FINAL, is_number
from scheduler.domain.task import Failure, Result, StoredImage, Task

CANCELLED = Failure(kind="cancelled", message="cancelled")
"""The end of a cancelled task, for those to whom it is a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a task: `status` is the record's, `outcome` a Result where that is `completed`.

    `attempt` is the claim's under which it was written, None for a task that nobody ever claimed; `at_s` is epoch
    seconds. A Result with an `images_key` may lack the images that lie there.
    """

    task: Task
    status: str
    outcome: Result | Failure
    run_no: int = 1
    attempt: int | None = None
    at_s: float

    @property
    def id(self) -> str:
        """What names this end to whoever is told of it: the same however often he is, another for every other end.

        It has no full stop, which separates the parts of what is signed.
        """
        named = f"{self.task.task_id} {self.run_no} {self.attempt or 0}"
        return f"msg_{hashlib.sha256(named.encode()).hexdigest()[:32]}"


def read_end(task: Task, record: Mapping[str, Any]) -> End | None:
    """Return the end of `task` that its record tells; None where it tells none, or not in the words of ours."""
    status, attempt, run_no = record.get("status"), record.get("attempt"), record.get("run_no", 1)
    if status not in FINAL:
        return None
    try:
        return End(
            task=task,
            status=str(status),
            outcome=_outcome(str(status), record),
            run_no=int(run_no),
            attempt=None if attempt is None else int(attempt),
            at_s=float(record["finished_at"]),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _outcome(status: str, record: Mapping[str, Any]) -> Result | Failure:
    if status == "cancelled":
        return CANCELLED
    if status == "completed":
        key = record.get("output_key")
        images = () if key else read_images(record["images"])
        return Result(images=images, images_key=key, result_s3_uri=record.get("result_s3_uri"))
    error = record["error"]
    return Failure(kind=error["class"], message=error["message"], field=error.get("field"), engine=error.get("engine"))


def image_item(image: StoredImage) -> dict[str, Any]:
    """Return an image as records and lists of images tell it."""
    item = {
        "key": image.key,
        "media_type": image.media_type,
        "bytes": image.size_bytes,
        "sha256": image.sha256,
    }
    numbers = {"width": image.width, "height": image.height, "seed": image.seed}
    return item | {name: number for name, number in numbers.items() if number is not None}


def read_images(items: Sequence[Mapping[str, Any]]) -> tuple[StoredImage, ...]:
    """Return the images that a list tells. Raises KeyError, TypeError or ValueError for what is no such list."""
    return tuple(
        StoredImage(
            key=item["key"],
            media_type=item["media_type"],
            size_bytes=int(item["bytes"]),
            sha256=item["sha256"],
            **{name: int(item[name]) for name in ("width", "height", "seed") if is_number(item.get(name))},
        )
        for item in items
    )
