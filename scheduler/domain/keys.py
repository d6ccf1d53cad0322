"""Where a picture lies in the bucket, and under which address people find it."""

from __future__ import annotations

import hashlib
import re

from scheduler.domain.task import Format, Task

MAX_PREFIX_CHARS = 200
PREVIEW_NAME = "preview.jpg"
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]+")
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Ids that are safe as they are in keys, addresses and log lines; a UUID is one."""


def clean_prefix(prefix: str) -> str:
    """Return `prefix` made safe: no empty, `.` or `..` parts, no characters that need quoting, bounded length."""
    parts = (_UNSAFE.sub("-", part) for part in prefix.split("/") if part not in {"", ".", ".."})
    cut = "/".join(parts)[:MAX_PREFIX_CHARS].split("/")
    return "/".join(part for part in cut if part not in {"", ".", ".."})  # the cut may have left such a part


def image_key(task: Task, *, default_prefix: str, run_no: int, index: int, extension: str) -> str:
    """Return the key of image `index` (from 1) of the task's run `run_no`; the same for every attempt at that run.

    The predecessor's clients build ``sd/out/<taskId>-<n>.png`` themselves, so its tasks keep that form; those of Stable
    Diffusion on EKS keep ``<prefix>/<id>/<id>-<mark>-<n>.png``, without the default prefix.
    """
    if task.format.is_eks:
        return f"{_eks_stem(task, run_no)}-{index}{extension}"
    run = "" if run_no == 1 else f"r{run_no}-"
    if task.format is Format.PREDECESSOR:
        return f"sd/out/{task.task_id}-{run}{index}{extension}"
    prefix = clean_prefix(task.prefix or "") or clean_prefix(default_prefix)
    return "/".join(part for part in (prefix, task.task_id, f"{run}{index}{extension}") if part)


def preview_key(task: Task, *, default_prefix: str) -> str:
    """Return the key of the picture in the making, beside those of the task; it is replaced as it grows."""
    prefix = clean_prefix(task.prefix or "") or clean_prefix(default_prefix)
    return "/".join(part for part in (prefix, task.task_id, PREVIEW_NAME) if part)


def output_key(task: Task, *, run_no: int) -> str:
    """Return the key of the JSON object that lies beside the pictures of a task of Stable Diffusion on EKS."""
    return f"{_eks_stem(task, run_no)}.out"


def images_key(task: Task, *, default_prefix: str, run_no: int) -> str:
    """Return the key of the list of a run's images, beside which it lies, when it is too long for the record."""
    stem = image_key(task, default_prefix=default_prefix, run_no=run_no, index=0, extension="").removesuffix("0")
    return f"{stem}images.json"


def run_mark(task_id: str, run_no: int) -> str:
    """Return the four hexadecimal digits that name a run in its keys, where the original draws them at random.

    Two runs of one task never share a mark: from the 65536th run on it is longer.
    """
    first = int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:2])
    rounds, place = divmod(run_no, 1 << 16)
    return f"{(first + place) % (1 << 16):04x}" + (f"{rounds:x}" if rounds else "")


def _eks_stem(task: Task, run_no: int) -> str:
    name = f"{task.task_id}-{run_mark(task.task_id, run_no)}"
    return "/".join(part for part in (clean_prefix(task.prefix or ""), task.task_id, name) if part)


def address(key: str, *, bucket: str, cloudfront_domain: str) -> str:
    """Return the address of a key: behind CloudFront when there is a domain, else the S3 URI."""
    return f"https://{cloudfront_domain}/{key}" if cloudfront_domain else f"s3://{bucket}/{key}"
