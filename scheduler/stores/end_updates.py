"""The updates that end a task: what each end leaves in the record, in the words of whoever submitted the task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.domain.claiming import is_number
from scheduler.domain.ends import image_item
from scheduler.domain.task import Failure, Format, Result
from scheduler.stores.claim_updates import FREE
from scheduler.stores.expressions import Update
from scheduler.wire import job_api, predecessor

SHOWN = ("progress", "step", "eta_s", "node", "preview_key")
"""How far a run is, for people."""
RUN_STATE = (*SHOWN, "cancel_requested")
MAX_MESSAGE_CHARS = 1000
_DAY_S = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """When tasks end: `now` is epoch seconds; the record may go `record_ttl_days` later."""

    now: float
    record_ttl_days: int

    def ended(self, status: str, form: Format, *, error: str, addresses: Sequence[str] = ()) -> Update:
        """Return the end that any task has; `addresses` are where its images are found."""
        update = Update().set(
            status=status,
            updated_at=int(self.now),
            finished_at=self.now,
            expires_at=math.ceil(self.now) + self.record_ttl_days * _DAY_S,
        )
        update.remove("lease_until")
        if form is Format.JOB_API:
            update.set(**job_api.ended(status))
        if form is Format.PREDECESSOR:
            update.set(**predecessor.finished(addresses, error[:MAX_MESSAGE_CHARS], now=self.now))
        return update

    def closed(self, record: Mapping[str, Any], status: str, failure: Failure | None, *, key_name: str) -> Update:
        """Return the end of a task that nobody holds, as long as its record is as `record` shows it."""
        update = self.ended(status, _format_of(record), error=failure.message if failure else status)
        update.set(owner="closed")  # so that a holder who comes back late is fenced off
        update.remove(*RUN_STATE)
        if failure is not None:
            update.set(**failure_items(failure))
        attempt = record.get("attempt")
        if is_number(attempt):
            update.when("{attempt} = {:attempt}", attempt=attempt)
        else:  # what is no number is no attempt of ours, and such a record stays as it is
            update.when("attribute_not_exists({attempt})")
        update.when(FREE, waiting="waiting", pending="pending", processing="processing", now=self.now)
        return update.when("attribute_exists({" + key_name + "})")


def result_items(result: Result) -> dict[str, Any]:
    """Return what a good end adds to the record."""
    listed: dict[str, Any] = {"images": [image_item(image) for image in result.images]}
    if result.images_key:
        listed = {"output_key": result.images_key}
    items = listed | {
        "queued_ms": result.timings.queued_ms,
        "prepare_ms": result.timings.prepare_ms,
        "generate_ms": result.timings.generate_ms,
        "store_ms": result.timings.store_ms,
    }
    optional = {"checkpoint": result.checkpoint, "sampler": result.sampler, "warnings": list(result.warnings)}
    optional |= {"result_s3_uri": result.result_s3_uri}
    items |= {name: value for name, value in optional.items() if value}
    if result.gpu_cost_usd is not None:
        items["gpu_cost_usd"] = result.gpu_cost_usd
    return items


def failure_items(failure: Failure) -> dict[str, Any]:
    """Return what a bad end adds to the record."""
    # Clients and engines put anything into these; a record that is too large could not be written at all.
    message, field, engine = (
        failure.message[:MAX_MESSAGE_CHARS],
        (failure.field or "")[:200],
        (failure.engine or "")[:500],
    )
    error = {"class": failure.kind, "message": message, "field": field, "engine": engine}
    return {
        "error": {name: value for name, value in error.items() if value},
        "error_message": message,
    }


def _format_of(record: Mapping[str, Any]) -> Format:
    """Return the format whose words the clients of a record expect in it."""
    if "requestData" in record or "taskStatus" in record:
        return Format.PREDECESSOR
    return Format.JOB_API if record.get("format") == Format.JOB_API else Format.OWN
