"""Demand like that of a public Stable Diffusion service; pure.

Fitted to published figures of one (service times, index of dispersion from a minute to an hour, empty windows, nights,
checkpoints, images and steps of GenTD26), none of whose rows is here: tests hold what comes out to these figures.
Arrivals are random at a rate that follows the hour of day, the day of week, and an intensity that wanders.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Hashable, Mapping
from itertools import accumulate
from typing import Generic, TypeVar

from scheduler.simulate.model import Arrival

_Thing = TypeVar("_Thing", bound=Hashable)

STEP_S = 60.0
"""The rate is constant for so long."""
HOUR_S = 3600.0
HOURS = (
    0.12,
    0.05,
    0.02,
    0.001,
    0.001,
    0.001,
    0.001,
    0.001,
    0.005,
    0.05,
    1.9,
    2.8,
    0.7,
    2.3,
    3.0,
    3.0,
    2.9,
    2.4,
    0.7,
    0.1,
    0.1,
    0.1,
    0.15,
    0.15,
)
"""What each hour of the day gets: a night, two peaks, an evening."""
WEEK = (0.95, 1.15, 1.2, 1.15, 0.95, 0.06, 0.03)
"""What each day of the week gets."""
WANDER_SIGMA = 0.45
WANDER_MEMORY_S = 30 * 60.0
"""The logarithm of the intensity wanders by so much, and forgets in so long."""

MODELS = 86
FIRST_MODELS = (0.31, 0.14, 0.10, 0.08, 0.07)
"""The shares of the checkpoints most asked for; those of the others fall with their rank."""
REST_EXPONENT = 1.2
STICKINESS = 0.13
"""How often a request follows the one before it in its checkpoint, whatever that is."""

IMAGES = {1: 0.58, 2: 0.08, 4: 0.19, 8: 0.15}
MEDIANS_S = {1: 19.5, 2: 23.0, 4: 34.5, 8: 37.0}
SIGMAS = {1: 0.39, 2: 0.4, 4: 0.54, 8: 0.56}
"""Seconds of GPU work for so many images: median and spread of a lognormal."""
STEPS = {30: 0.91, 40: 0.05, 25: 0.02, 50: 0.02}
USUAL_STEPS = 30
MEAN_SERVICE_S = sum(
    share * MEDIANS_S[images] * math.exp(SIGMAS[images] ** 2 / 2) for images, share in IMAGES.items()
) * sum(steps * share / USUAL_STEPS for steps, share in STEPS.items())


def like_a_service(*, days: float, load: float, seed: int) -> list[Arrival]:
    """Return `days` of arrivals, from a midnight on, that keep `load` GPUs busy on average over whole weeks."""
    chance = random.Random(seed)
    work = _Work(chance)
    hourly = sum(HOURS) / len(HOURS) * sum(WEEK) / len(WEEK)
    per_s = load / MEAN_SERVICE_S / hourly
    forget = math.exp(-STEP_S / WANDER_MEMORY_S)
    wander = chance.gauss(0.0, WANDER_SIGMA)
    arrivals = []
    for number in range(math.ceil(days * 24 * HOUR_S / STEP_S)):
        from_s = number * STEP_S
        until_s = min(from_s + STEP_S, days * 24 * HOUR_S)
        wander = wander * forget + chance.gauss(0.0, WANDER_SIGMA * math.sqrt(1 - forget * forget))
        hours = int(from_s // HOUR_S)
        rate = per_s * HOURS[hours % 24] * WEEK[hours // 24 % 7] * math.exp(wander - WANDER_SIGMA**2 / 2)
        at_s = from_s + chance.expovariate(rate)
        while at_s < until_s:
            arrivals.append(work.task(at_s))
            at_s += chance.expovariate(rate)
    return arrivals


class _Work:
    """What the tasks ask for, one after the other."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._models = _Draw({str(rank): share for rank, share in enumerate(_model_shares(), 1)}, chance)
        self._images = _Draw(IMAGES, chance)
        self._steps = _Draw(STEPS, chance)
        self._model = self._models.one()

    def task(self, at_s: float) -> Arrival:
        """Return the task that comes then."""
        if self._chance.random() >= STICKINESS:
            self._model = self._models.one()
        images, steps = self._images.one(), self._steps.one()
        service_s = MEDIANS_S[images] * math.exp(self._chance.gauss(0.0, SIGMAS[images])) * steps / USUAL_STEPS
        return Arrival(round(at_s, 3), round(service_s, 3), self._model)


class _Draw(Generic[_Thing]):
    """Things drawn at random by their shares, which add up to 1."""

    def __init__(self, shares: Mapping[_Thing, float], chance: random.Random) -> None:
        self._things = list(shares)
        self._sums = [*accumulate(shares.values())][:-1]
        self._chance = chance

    def one(self) -> _Thing:
        return self._things[bisect(self._sums, self._chance.random())]


def _model_shares() -> list[float]:
    rest = [rank**-REST_EXPONENT for rank in range(len(FIRST_MODELS) + 1, MODELS + 1)]
    left = 1 - sum(FIRST_MODELS)
    return [*FIRST_MODELS, *(weight / sum(rest) * left for weight in rest)]
