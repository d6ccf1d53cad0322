"""SQS, DynamoDB and S3 fail in turn, in every way they can, while work goes on:
nothing lost, nothing rendered twice.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from daemon_process import Start
from flaky_aws import FlakyAws, Mood
from waiting import until
from world import Engines, World

VISIBLE = (Mood.REFUSING, Mood.BROKEN, Mood.THROTTLED)
"""Moods that show themselves within seconds; what hangs does so only when the time limits of the calls are up."""
TASKS = 6
SAYS = {"sqs": "receiving from", "dynamodb": "task", "s3": "storing s3://"}


@pytest.fixture
def flaky(world: World) -> Iterator[FlakyAws]:
    aws = FlakyAws(world.cloud.url)
    yield aws
    aws.close()


@pytest.mark.slow
@pytest.mark.parametrize("service", ["sqs", "dynamodb", "s3"])
def test_a_service_that_fails_in_every_way_costs_no_task_and_no_picture(
    world: World, engine: Engines, start: Start, flaky: FlakyAws, service: str
) -> None:
    standin = engine(seconds_per_step=0.1)
    daemon = start(world.conf(standin.base_url), flaky.environ).started()
    for n, mood in enumerate([*VISIBLE, Mood.HANGING, Mood.FORGETFUL]):
        ids = [world.send_task(f"{mood} {i}", seed=i) for i in range(TASKS)]
        daemon.wait_for("task_ended", times=TASKS * n + 2)
        flaky.become(mood, service)
        if mood in VISIBLE:
            report = daemon.until_health(503, says=SAYS[service])
            assert not report["aws"]["ok"]
            assert report["engines"][0]["ready"]
        else:
            until(lambda: flaky.services[service].struck >= 3, what="three calls in vain")
        flaky.become(Mood.WELL, service)
        world.until_status("completed", *ids)
    world.until_done()

    world.assert_all_completed()
    daemon.until_health(200)
    assert set(standin.stats()["renders"].values()) == {1}
    assert {record["runs"] for record in world.records().values()} == {1}
    assert daemon.stop() == 0


def test_without_aws_it_lives_says_so_and_works_once_aws_is_there(
    world: World, engine: Engines, start: Start, flaky: FlakyAws
) -> None:
    flaky.become(Mood.REFUSING)
    world.send_task("patient")
    daemon = start(world.conf(engine().base_url), flaky.environ)
    report = daemon.until_health(503, says=world.queue.name)
    assert not report["aws"]["ok"]
    daemon.wait_for("aws_unavailable", times=2)
    assert daemon.process.poll() is None

    flaky.become(Mood.WELL)

    daemon.started()
    world.until_done()
    world.assert_all_completed()
    daemon.until_health(200)


def test_told_to_stop_while_it_waits_for_aws_it_ends_well(
    world: World, engine: Engines, start: Start, flaky: FlakyAws
) -> None:
    flaky.become(Mood.REFUSING)
    daemon = start(world.conf(engine().base_url), flaky.environ)
    daemon.wait_for("aws_unavailable")
    assert daemon.stop() == 0


@pytest.mark.slow
def test_told_to_stop_while_a_picture_cannot_be_kept_it_ends_within_its_grace_and_the_task_is_done_later(
    world: World, engine: Engines, start: Start, flaky: FlakyAws
) -> None:
    standin = engine()
    task_id = world.send_task("kept", steps=50)
    conf = world.conf(standin.base_url, stop_grace_s=3)
    daemon = start(conf, flaky.environ).started()
    until(lambda: standin.stats()["renders"].get("kept"), what="the render")
    flaky.become(Mood.REFUSING, "s3")
    daemon.until_health(503, says=task_id)

    assert daemon.stop(20) == 0

    assert world.status(task_id) in {"processing", "pending"}, "it has no end: its claim was given back, or runs out"
    flaky.become(Mood.WELL, "s3")
    start(conf, flaky.environ)
    world.until_done()
    world.assert_all_completed()
