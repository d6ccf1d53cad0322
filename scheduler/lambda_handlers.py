"""Entry points for AWS Lambda. The configuration comes through SCHEDULER_<SECTION>_<KEY> variables, or a packed
conf.ini.

`autoscale` belongs on a schedule of one minute: with min_capacity = 0 it is what begins again from nothing.
docs/lambda.md says how to pack it, what it may do, and what runs it.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from scheduler.config import load
from scheduler.fleet import make_leader, open_fleet
from scheduler.observe import logging


def autoscale(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Look at the fleet once, decide and act; return who leads, what is wanted and why.

    `event` is what the schedule sends, and says nothing. Raises Unavailable or ConfigError, which Lambda shows as a
    failed invocation.
    """
    del event
    settings = load(None, os.environ)
    logging.configure(secrets=settings.secrets)
    name = f"lambda:{getattr(context, 'function_name', 'autoscale')}"
    parts = open_fleet(settings, host=name)
    outcome = make_leader(parts, name=name, looks_once=True).tick()
    book = outcome.book
    return outcome.to_json() | {"snapshot": asdict(book.snapshot) if book and book.snapshot else None}
