"""What AWS answers, read with suspicion: a 200 may come from a proxy, or be cut short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scheduler.aws.errors import translated
from scheduler.domain.errors import Unavailable


@contextmanager
def understood(doing: str) -> Iterator[None]:
    """Stand around a call and the reading of its answer: `translated`, and an answer of another shape is Unavailable.

    Nothing else belongs into the block, or a fault of ours would pass for an outage.
    """
    with translated(doing):
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise Unavailable(f"{doing}: the answer is none of AWS's: {error!r:.200}") from error


def require_aws(answer: Mapping[str, Any]) -> None:
    """Raise LookupError unless AWS itself gave this answer; for calls whose good answer is empty."""
    if not answer["ResponseMetadata"].get("RequestId"):
        raise LookupError("no request id")
