"""Our own instance metadata keeps IMDSv2's rules, so that what works with it works on EC2; botocore is the judge."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher
from fakes import FakeClock

from scheduler.aws.instance_metadata import InstanceMetadata
from scheduler.drain.notices import LIFECYCLE_STATE, MAINTENANCE, REBALANCE, TERMINATION_TIME, Kind, Notice
from scheduler.drain.watch import Watcher
from scheduler.local.metadata import LocalInstance, LocalMetadata

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
HEADER = "X-aws-ec2-metadata-token"


@pytest.fixture
def local(clock: FakeClock) -> Iterator[LocalMetadata]:
    with LocalMetadata(clock) as server:
        yield server


@pytest.fixture
def instance(local: LocalMetadata) -> LocalInstance:
    return local.add("i-1")


def ask(instance: LocalInstance, method: str, path: str, **headers: str) -> tuple[int, str]:
    url = urlsplit(instance.endpoint)
    connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)
    try:
        connection.request(
            method, f"{url.path}/latest/{path}", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def token(instance: LocalInstance, ttl_s: int = 60) -> str:
    status, body = ask(instance, "PUT", "api/token", **{TTL: str(ttl_s)})
    assert status == 200
    return body


def read(instance: LocalInstance, path: str) -> tuple[int, str]:
    return ask(instance, "GET", f"meta-data/{path}", **{HEADER: token(instance)})


def test_nothing_is_told_without_a_good_token(local, instance, clock):
    other = local.add("i-2")
    mine = token(instance, 60)
    assert ask(instance, "GET", "meta-data/instance-id", **{HEADER: mine}) == (200, "i-1")
    assert ask(instance, "GET", "meta-data/instance-id")[0] == 401
    assert ask(instance, "GET", "meta-data/no/such", **{HEADER: "made-up"})[0] == 401
    assert ask(other, "GET", "meta-data/instance-id", **{HEADER: mine})[0] == 401
    clock.advance(60)
    assert ask(instance, "GET", "meta-data/instance-id", **{HEADER: mine})[0] == 401


@pytest.mark.parametrize(
    ("ttl", "status"), [("1", 200), ("21600", 200), ("21601", 400), ("0", 400), ("", 400), ("-5", 400)]
)
def test_a_token_lives_a_second_to_six_hours(instance, ttl, status):
    assert ask(instance, "PUT", "api/token", **{TTL: ttl})[0] == status


def test_a_token_is_only_given_to_those_who_ask_as_they_should(instance):
    assert ask(instance, "PUT", "api/token")[0] == 400
    assert ask(instance, "PUT", "api/token", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403
    assert ask(instance, "GET", "api/token")[0] == 405
    assert ask(instance, "POST", "api/token", **{TTL: "60"})[0] == 405
    assert ask(instance, "DELETE", "meta-data/instance-id", **{HEADER: token(instance)})[0] == 405


def test_what_is_not_announced_is_not_there(instance):
    for path in (TERMINATION_TIME, REBALANCE, LIFECYCLE_STATE, "no/such"):
        assert read(instance, path)[0] == 404
    assert read(instance, MAINTENANCE) == (200, "[]")
    assert ask(instance, "GET", "dynamic/x", **{HEADER: token(instance)})[0] == 404


def test_instances_are_strangers_to_each_other(local, instance):
    other = local.add("i-2", zone="eu-west-1c", life_cycle="on-demand")
    instance.interrupt(120)
    assert read(other, "spot/instance-action")[0] == 404
    assert read(other, "placement/region") == (200, "eu-west-1")
    assert read(other, "instance-life-cycle") == (200, "on-demand")


def test_cancelled_maintenance_stays_in_the_list_as_aws_keeps_it(instance):
    event_id = instance.maintenance(3600, code="instance-retirement")
    instance.cancel_maintenance(event_id)
    (event,) = json.loads(read(instance, MAINTENANCE)[1])
    assert (event["State"], event["EventId"], event["Code"]) == ("canceled", event_id, "instance-retirement")
    assert event["Description"].startswith("[Canceled] ")


def test_all_that_is_ordered_arrives_as_a_notice(instance, clock):
    told: list[Notice] = []
    metadata = InstanceMetadata(instance.endpoint, clock=clock)
    watcher = Watcher(metadata, on_notice=told.append, clock=clock)
    watcher.cycle()
    assert told == []
    instance.interrupt(120, action="stop")
    instance.rebalance()
    instance.maintenance(7200, code="system-reboot")
    instance.lifecycle_state("Terminated")
    watcher.cycle()
    assert {(notice.kind, notice.action) for notice in told} == {
        (Kind.INTERRUPTION, "stop"),
        (Kind.ASG_TERMINATE, "terminate"),
        (Kind.MAINTENANCE, "system-reboot"),
        (Kind.REBALANCE, "rebalance"),
    }
    due = {notice.kind: notice.deadline_s for notice in told}
    assert due[Kind.INTERRUPTION] == int(clock.now() + 120)
    assert due[Kind.MAINTENANCE] == int(clock.now() + 7200)


# botocore asks it as it asks EC2


@pytest.mark.parametrize("kind", [InstanceMetadataRegionFetcher, InstanceMetadataFetcher])
def test_botocores_own_readers_are_content(local, kind):
    instance = local.add("i-9", zone="ap-northeast-1c")
    config = {"ec2_metadata_service_endpoint": instance.endpoint, "ec2_metadata_v1_disabled": True}
    fetcher = kind(config=config, env={}, timeout=10)
    if kind is InstanceMetadataRegionFetcher:
        assert fetcher.retrieve_region() == "ap-northeast-1"
    else:
        assert fetcher.retrieve_iam_role_credentials() == {}  # as of an instance without a role
    assert instance.refusals == 0
