"""Random seeds that are none: what a task leaves to chance is fixed by its id and run; pure."""

from __future__ import annotations

import hashlib


def pinned_seed(key: str) -> int:
    """Return a seed of 32 bits, which every sampler takes: the same for the same key, another for any other."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4])
