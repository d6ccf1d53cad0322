"""Which of a host's engines a task is for; pure."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.domain.pace import Needs
from scheduler.domain.ports import Engine
from scheduler.domain.task import Task, TaskType


def kind_for(task: Task) -> str:
    """Return the kind of engine that such a task is for, as [engines] spells it."""
    if task.api_path is not None:
        return "job_api"
    return "comfyui" if task.task_type is TaskType.PIPELINE else "sdwebui"


class Routes:
    """The runtimes that a host's engines serve. A task that names none is for the first engine that can run it."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = tuple(engines)

    @property
    def runtimes(self) -> list[str]:
        """The names that a task may give, in the order of the engines."""
        return list(dict.fromkeys(name for engine in self._engines for name in sorted(engine.runtimes)))

    def runtime(self, task: Task) -> str | None:
        """Return the name under which the task runs here, None when no engine here serves it."""
        if task.runtime is not None:
            return task.runtime if task.runtime in self.runtimes else None
        able = next((engine for engine in self._engines if engine.can_run(task)), None)
        return min(able.runtimes) if able is not None else None

    def needs(self, task: Task) -> Needs:
        """Return what the task asks of the engine that it leads to."""
        return next((one for one in self._engines if self.leads_to(one, task)), self._engines[0]).needs(task)

    def leads_to(self, engine: Engine, task: Task) -> bool:
        """Tell whether `engine` may run the task. What nobody serves is the first engine's, which refuses it."""
        runtime = self.runtime(task)
        return engine is self._engines[0] if runtime is None else runtime in engine.runtimes
