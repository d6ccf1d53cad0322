"""Where a picture lies in the bucket, and under which address people find it."""

from __future__ import annotations

import re

from scheduler.domain.task import Format, Task

MAX_PREFIX_CHARS = 200
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

    The predecessor's clients build ``sd/out/<taskId>-<n>.png`` themselves, so its tasks keep that form.
    """
    run = "" if run_no == 1 else f"r{run_no}-"
    if task.format is Format.PREDECESSOR:
        return f"sd/out/{task.task_id}-{run}{index}{extension}"
    prefix = clean_prefix(task.prefix or "") or clean_prefix(default_prefix)
    return "/".join(part for part in (prefix, task.task_id, f"{run}{index}{extension}") if part)


def address(key: str, *, bucket: str, cloudfront_domain: str) -> str:
    """Return the address of a key: behind CloudFront when there is a domain, else the S3 URI."""
    return f"https://{cloudfront_domain}/{key}" if cloudfront_domain else f"s3://{bucket}/{key}"
