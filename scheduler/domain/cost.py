"""What a task cost: the instance's price for the seconds in which its GPU worked for it."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

SMALLEST_USD = Decimal("0.00000001")
"""Costs are rounded to this: a hundredth of a second of the cheapest GPU is still more than nothing."""
HOUR_S = 3600


def gpu_cost_usd(*, usd_per_hour: Decimal, gpu_s: float, engines: int = 1) -> Decimal:
    """Return the cost of `gpu_s` measured seconds on an instance of that price, in US dollars.

    `engines` share the instance, a GPU each, and so its price. What the instance costs while it waits is in no task's
    cost, so that the same picture costs the same whether the fleet is busy or not.
    """
    share = usd_per_hour / HOUR_S / engines
    return (share * Decimal(gpu_s)).quantize(SMALLEST_USD, rounding=ROUND_HALF_EVEN)
