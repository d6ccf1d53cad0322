"""The Spot price, asked of an EC2 that answers on a socket."""

from __future__ import annotations

from decimal import Decimal

import boto3
from aws_servers import REGION, Cloud
from fakes import FakeClock

from scheduler.aws.instance_price import SpotPrice


def test_the_price_is_found_by_type_and_zone(moto: Cloud, clock: FakeClock):
    client = boto3.client("ec2", region_name=REGION, endpoint_url=moto.url)
    price = SpotPrice(client, instance_type="g4dn.xlarge", zone=f"{REGION}a", clock=clock)
    price.cycle()
    assert price.usd_per_hour == Decimal("0.00001")  # what everything costs in moto


def test_a_type_that_a_zone_does_not_offer_has_no_price(moto: Cloud, clock: FakeClock):
    client = boto3.client("ec2", region_name=REGION, endpoint_url=moto.url)
    price = SpotPrice(client, instance_type="no.such", zone=f"{REGION}a", clock=clock)
    price.cycle()
    assert price.usd_per_hour is None
