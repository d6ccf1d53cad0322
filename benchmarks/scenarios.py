"""What is measured, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A queue full of tasks and what happens to the consumer meanwhile.

    Times are in seconds. `bad_share` of the tasks are of the kinds in `tasks.BAD_KINDS`. `kills` (SIGKILL) and
    `terms` (SIGTERM) come in the middle of work, spread evenly, and are followed by a restart. `repeats` is how many
    runs the median is taken of.
    """

    name: str
    about: str
    tasks: int
    render_s: float
    switch_s: float = 2.0
    checkpoints: int = 0
    bad_share: float = 0.0
    kills: int = 0
    terms: int = 0
    visibility_s: int = 60
    max_receives: int = 5
    limit_s: float = 180.0
    repeats: int = 1


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="smoke", about="does the consumer work at all", tasks=6, render_s=0.1),
        Scenario(name="throughput", about="the cost of everything but rendering", tasks=200, render_s=0.0),
        Scenario(name="duty-250ms", about="share of time that the GPU renders", tasks=60, render_s=0.25, repeats=3),
        Scenario(name="duty-1s", about="the same with longer renders", tasks=20, render_s=1.0, repeats=3),
        Scenario(name="mixed", about="three checkpoints in random order", tasks=60, render_s=0.25, checkpoints=3),
        Scenario(name="crash", about="SIGKILL three times", tasks=60, render_s=0.25, kills=3, visibility_s=5),
        # A message that is dropped at SIGTERM must still be in flight when the wait for the exit is over.
        Scenario(name="term", about="SIGTERM three times", tasks=24, render_s=1.0, terms=3, visibility_s=40),
        Scenario(
            name="poison",
            about="a fifth of the messages is bad, in eight ways",
            tasks=80,
            render_s=0.05,
            bad_share=0.2,
            visibility_s=5,
            max_receives=3,
            limit_s=90.0,
        ),
    )
}
