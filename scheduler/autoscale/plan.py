"""From what is wanted to what is done: the order of steps in which no running task is killed; pure.

A worker goes by these steps, one batch at a time: it is drained; it consents; the target is lowered for it; the lower
target is confirmed; it is told to end and ends itself. Ended before the target is lowered, the fleet would replace it;
lowered twice for one worker, the fleet would shrink for ever, so what the target was and will be is written down
before. Every tick begins from what EC2 and the registry show, and goes on from there, whoever led before.
"""

from __future__ import annotations

from dataclasses import replace

from scheduler.autoscale.approach import approach
from scheduler.autoscale.fleets.port import Condition
from scheduler.autoscale.settling import settle
from scheduler.autoscale.steps import Facts, Plan


def make(facts: Facts) -> Plan:
    """Return what to do now."""
    plan = Plan(book=facts.book)
    settle(facts, plan)
    if facts.view.condition is Condition.ENDED:
        plan.book = replace(plan.book, hold="the fleet is cancelled, failed or deleted")
    elif facts.wanted is not None:
        approach(facts, plan, facts.wanted)
    return plan
