"""What this Spot instance costs an hour, as EC2 last published it for its type and zone; read beside the work."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import structlog

from scheduler.aws.answers import understood
from scheduler.domain.errors import Unavailable
from scheduler.domain.ports import Clock

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ec2.type_defs import SpotPriceTypeDef

log = structlog.get_logger()

REFRESH_S = 3600.0
"""Spot prices move slowly, and an instance pays the price of the hour it is in."""
AGAIN_S = 300.0
"""After a failure."""
MAX_AGE_S = 6 * 3600.0
"""An older price is no price."""
PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")


class SpotPrice:
    """One loop calls `cycle`; `usd_per_hour` may be read from any thread and never waits.

    For On-Demand instances there is nothing of the kind: EC2 does not tell their prices, only the Price List service
    does, in documents of thousands of offers and with a permission of its own. Their tasks carry no cost.
    """

    def __init__(self, ec2: EC2Client, *, instance_type: str, zone: str, clock: Clock) -> None:
        self._ec2 = ec2
        self._instance_type = instance_type
        self._zone = zone
        self._clock = clock
        self._known: tuple[Decimal, float] | None = None
        self._is_told = False

    @property
    def usd_per_hour(self) -> Decimal | None:
        """The price, or None while none is known."""
        known = self._known
        if known is None or self._clock.monotonic() - known[1] > MAX_AGE_S:
            return None
        return known[0]

    def cycle(self) -> float:
        """Ask for the price; return the seconds until the next time.
        A failure is logged once and keeps the last one.
        """
        asked_s = self._clock.monotonic()
        try:
            price = self._ask()
        except Unavailable as error:
            if not self._is_told:
                log.warning(
                    "price_unavailable", instance_type=self._instance_type, zone=self._zone, error=error.message
                )
            self._is_told = True
            return AGAIN_S
        self._is_told = False
        self._known = (price, asked_s)
        return REFRESH_S

    def _ask(self) -> Decimal:
        """Return the newest price. With the present as the start, EC2 tells the one in force and none before it."""
        with understood(f"asking for the Spot price of {self._instance_type} in {self._zone}"):
            answer = self._ec2.describe_spot_price_history(
                InstanceTypes=[self._instance_type],  # type: ignore[list-item]  # the stubs list the types of their day
                AvailabilityZone=self._zone,
                ProductDescriptions=list(PRODUCTS),
                StartTime=datetime.fromtimestamp(self._clock.now(), UTC),
            )
            told = answer.get("SpotPriceHistory", [])
            prices = [(price["Timestamp"], price["SpotPrice"]) for price in told if self._is_ours(price)]
        if not prices:
            raise Unavailable(f"EC2 tells no Spot price of {self._instance_type} in {self._zone}")
        return _dollars(max(prices)[1])

    def _is_ours(self, price: SpotPriceTypeDef) -> bool:
        return (price.get("InstanceType"), price.get("AvailabilityZone")) == (self._instance_type, self._zone)


def _dollars(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation as error:
        raise Unavailable(f"EC2 tells {text!r} for a price") from error
    if not price.is_finite() or price <= 0:
        raise Unavailable(f"EC2 tells {text!r} for a price")
    return price
