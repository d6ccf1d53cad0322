"""The time limits of the clients, each by its job."""

from __future__ import annotations

import pytest

from scheduler.aws.clients import build


@pytest.fixture(scope="module")
def clients():
    return build("us-east-1", poll_interval_s=17, threads=6)


def limits(client) -> tuple[float, float, int]:
    config = client.meta.config
    return config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]


def test_a_receive_outlasts_its_long_poll_and_is_never_sent_again(clients):
    assert limits(clients.receive) == (3, 27, 1)


def test_the_keepers_clients_are_its_own_and_give_up_soon(clients):
    assert limits(clients.keeper_sqs) == limits(clients.keeper_dynamodb) == (2, 3, 2)
    assert clients.keeper_sqs is not clients.sqs
    assert clients.keeper_dynamodb is not clients.dynamodb


def test_the_others_wait_ten_seconds(clients):
    assert {limits(client) for client in (clients.sqs, clients.dynamodb, clients.s3)} == {(3, 10, 3)}


def test_each_thread_finds_a_connection(clients):
    assert {client.meta.config.max_pool_connections for client in (clients.sqs, clients.dynamodb, clients.s3)} == {6}
