"""The cost of a task: the price of the seconds its GPU worked, and nothing where no price is known."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import boto3
import pytest
from aws_servers import NOWHERE
from botocore.stub import ANY, Stubber
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from scheduler.aws.instance_price import AGAIN_S, MAX_AGE_S, REFRESH_S, SpotPrice
from scheduler.domain.cost import gpu_cost_usd
from scheduler.stores.expressions import decode, encode

TYPE, ZONE = "g4dn.xlarge", "us-east-1a"


@pytest.mark.parametrize(
    ("price", "gpu_s", "engines", "cost"),
    [
        ("0.18", 3600, 1, "0.18"),
        ("0.18", 20, 1, "0.001"),
        ("0.18", 0, 1, "0"),
        ("0.1578", 3.214, 1, "0.00014088"),
        ("3.9120", 20, 4, "0.00543333"),
        ("0.18", 0.0001, 1, "0.00000001"),
    ],
)
def test_price_times_seconds(price, gpu_s, engines, cost):
    assert gpu_cost_usd(usd_per_hour=Decimal(price), gpu_s=gpu_s, engines=engines) == Decimal(cost)


@given(st.decimals("0.001", 100, places=4), st.lists(st.floats(0, 600), max_size=20), st.integers(1, 8))
def test_the_costs_of_tasks_add_up_to_what_the_gpu_time_cost(price, seconds, engines):
    costs = [gpu_cost_usd(usd_per_hour=price, gpu_s=one, engines=engines) for one in seconds]
    expected = float(price) * sum(seconds) / 3600 / engines
    assert float(sum(costs)) == pytest.approx(expected, abs=1e-8 * (len(seconds) + 1))


def test_a_cost_survives_the_record():
    cost = gpu_cost_usd(usd_per_hour=Decimal("0.18"), gpu_s=0.001)
    assert decode({"gpu_cost_usd": encode(cost)}) == {"gpu_cost_usd": Decimal("0.00000005")}


# where the price comes from


class Ec2:
    """An EC2 client that answers in turn what a test says, and checks what it is asked."""

    def __init__(self) -> None:
        self.client = boto3.client("ec2", endpoint_url=NOWHERE)
        self.stub = Stubber(self.client)
        self.stub.activate()

    def tells(self, *prices: tuple[str, int], **other: str) -> None:
        rows = [
            {
                "InstanceType": TYPE,
                "AvailabilityZone": ZONE,
                "SpotPrice": price,
                "Timestamp": dt.datetime.fromtimestamp(at_s, dt.UTC),
            }
            | other
            for price, at_s in prices
        ]
        asked = {
            "InstanceTypes": [TYPE],
            "AvailabilityZone": ZONE,
            "ProductDescriptions": ANY,
            "StartTime": ANY,
        }
        self.stub.add_response("describe_spot_price_history", {"SpotPriceHistory": rows}, asked)

    def refuses(self, code: str = "UnauthorizedOperation") -> None:
        self.stub.add_client_error("describe_spot_price_history", code, "no")


@pytest.fixture
def ec2() -> Ec2:
    return Ec2()


@pytest.fixture
def price(ec2: Ec2, clock: FakeClock) -> SpotPrice:
    return SpotPrice(ec2.client, instance_type=TYPE, zone=ZONE, clock=clock)


def test_the_newest_price_holds_and_is_asked_for_again_in_an_hour(ec2, price):
    assert price.usd_per_hour is None
    ec2.tells(("0.1500", 100), ("0.1600", 300), ("0.1700", 200))
    assert price.cycle() == REFRESH_S == 3600
    assert price.usd_per_hour == Decimal("0.16")
    ec2.tells(("0.2000", 400))
    price.cycle()
    assert price.usd_per_hour == Decimal("0.2")


@pytest.mark.parametrize("other", [{"AvailabilityZone": "us-east-1b"}, {"InstanceType": "p4d.24xlarge"}])
def test_another_zones_or_types_price_is_none_of_ours(ec2, price, other):
    ec2.tells(("0.1500", 100), **other)
    assert price.cycle() == AGAIN_S
    assert price.usd_per_hour is None


@pytest.mark.parametrize("text", ["", "free", "0", "-0.1", "NaN", "Infinity"])
def test_what_is_no_price_is_none(ec2, price, text):
    ec2.tells((text, 100))
    assert price.cycle() == AGAIN_S
    assert price.usd_per_hour is None


def test_a_failure_is_logged_once_and_keeps_the_price_until_it_is_old(ec2, price, clock):
    ec2.tells(("0.1500", 100))
    price.cycle()
    for _ in range(3):
        ec2.refuses()
    with capture_logs() as logs:
        assert [price.cycle() for _ in range(3)] == [AGAIN_S] * 3
    assert [line["event"] for line in logs] == ["price_unavailable"]
    clock.advance(MAX_AGE_S)
    assert price.usd_per_hour == Decimal("0.15")
    clock.advance(1)
    assert price.usd_per_hour is None
    ec2.tells(("0.1900", 900))
    price.cycle()
    assert price.usd_per_hour == Decimal("0.19")
    ec2.refuses()
    with capture_logs() as logs:
        price.cycle()
    assert [line["event"] for line in logs] == ["price_unavailable"]
