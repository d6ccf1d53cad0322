"""Thirty days in virtual time: thousands of interruptions, daemons killed between any two calls, calls unanswered."""

from __future__ import annotations

import logging

import pytest
import structlog
from fleet_in_memory import Faults, World

DAYS = 30
MAX_CAPACITY = 6


@pytest.fixture
def quiet():
    """The soak logs a hundred thousand lines that nobody reads."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_month_loses_no_task_and_ends_no_busy_worker(quiet):
    world = World(
        seed=7,
        max_capacity=MAX_CAPACITY,
        faults=Faults(killed=0.002, unavailable=0.01, reclaims_per_hour=10.0, silent_death=0.01),
    )
    excess_s = 0.0
    end_s = world.clock.now() + DAYS * 86400
    while world.clock.now() < end_s:
        if world.random.random() < 0.045:
            world.send(world.random.randint(1, 60), service_s=world.random.lognormvariate(3.0, 0.7))
        for _ in range(10):
            world.run(60.0)
            excess_s += 60.0 * max(0, len(world.fleet.alive) - MAX_CAPACITY)
    world.run_until(lambda: all(task.ended_s for task in world.tasks), within_s=4 * 3600)
    world.run_until(lambda: world.fleet.alive == [], within_s=4 * 3600)
    assert world.violations == []
    assert world.reclaims > 1500
    assert world.kills > 500
    assert world.most_alive <= MAX_CAPACITY + 2
    assert excess_s < 0.01 * DAYS * 86400
