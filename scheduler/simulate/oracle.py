"""Schedules by one who knows all arrivals: what no policy can beat by much, to measure policies against.

With patience 0 it is the cheapest in which nobody waits: each task goes to the worker whose gap since its last task is
the shortest that still costs less than a boot. With patience it is greedy, not a bound: each task takes the place that
costs least, within the wait allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.simulate.model import Arrival, Outcome, Terms

FORGET_AFTER_BOOTS = 2.0


def oracle(arrivals: Sequence[Arrival], terms: Terms, *, patience_s: float) -> Outcome:
    """Return the schedule in which nobody waits longer than `patience_s`, as an outcome named ``oracle-<patience>``.

    A gap costs what idling through it costs, or another boot, whichever is less. Capacity bounds do not bind it.
    """
    ends_s: list[float] = []
    models: list[str] = []
    waits_s: list[float] = []
    gpu_s = busy_s = 0.0
    peak = 0
    for at_s, service_s, model in arrivals:
        own_s = max(1.0, service_s - (terms.switch_s if model else 0.0))
        best = -1
        best_cost, best_start_s, best_took_s = terms.boot_s + terms.switch_s, at_s, own_s
        for number, end_s in enumerate(ends_s):
            start_s = max(at_s, end_s)
            if start_s - at_s > patience_s:
                continue
            switch_s = terms.switch_s if model and models[number] != model else 0.0
            cost = min(start_s - end_s, terms.boot_s) + switch_s
            if (cost, start_s) < (best_cost, best_start_s):
                best, best_cost, best_start_s, best_took_s = number, cost, start_s, own_s + switch_s
        if best < 0:
            best_took_s = own_s + (terms.switch_s if model else 0.0)
            gpu_s += terms.boot_s + best_took_s
            ends_s.append(at_s + best_took_s)
            models.append(model)
        else:
            gpu_s += min(best_start_s - ends_s[best], terms.boot_s) + best_took_s
            ends_s[best], models[best] = best_start_s + best_took_s, model or models[best]
        busy_s += best_took_s
        waits_s.append(best_start_s - at_s)
        peak = max(peak, sum(end_s > at_s for end_s in ends_s))
        alive = [n for n, end_s in enumerate(ends_s) if end_s > at_s - FORGET_AFTER_BOOTS * terms.boot_s]
        if len(alive) < len(ends_s):
            ends_s, models = [ends_s[n] for n in alive], [models[n] for n in alive]
    return Outcome(
        policy=f"oracle-{patience_s:g}",
        waits_s=tuple(waits_s),
        gpu_s=gpu_s,
        busy_s=busy_s,
        killed=0,
        interrupted=0,
        actions=0,
        peak=peak,
        duration_s=max((at_s for at_s, _, _ in arrivals), default=0.0),
        price_usd_per_hour=terms.price_usd_per_hour,
        late_after_s=terms.late_after_s,
    )
