"""The memory that requests and pictures may take."""

from __future__ import annotations

from worker_in_memory import Worker

from scheduler.loops.byte_budget import ByteBudget


def test_a_task_larger_than_all_memory_goes_alone(clock):
    budget = ByteBudget(100)
    held = Worker(clock).take()
    assert budget.reserve(1000, 0.0)
    assert not budget.reserve(1, 0.0)
    held.reserved_bytes = 1000
    budget.release(held)
    assert held.reserved_bytes == 0
    assert budget.reserve(100, 0.0)
    budget.release(held)  # a second release gives nothing back
    assert not budget.reserve(1, 0.0)
