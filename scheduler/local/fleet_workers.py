"""Worker processes of this machine, started, reaped and ended so that there are as many as wanted; no HTTP here."""

from __future__ import annotations

import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scheduler.autoscale.fleets.port import Condition, FleetView, Life, Member

STOP_GRACE_S = 30.0
"""From SIGTERM to SIGKILL, for a worker that is ended."""
CLOSE_GRACE_S = 5.0
"""The same when all end, because nobody is left to want what they render."""
SHOWN_ENDED_S = 60.0
"""How long a worker that has ended is still shown."""
AFTER_DEATH_S = 2.0
"""A worker that died by itself is replaced no sooner, so that one that cannot start does not busy the machine."""
# The order to the kernel (PR_SET_PDEATHSIG) survives the exec: the worker dies with the thread that started it.
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) or os._exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a worker is started: `{id}` in the command and in the values of `environ` becomes its instance id.

    Each gets a folder of its own below `folder`, which it is started in and which holds what it prints, `output`.
    """

    command: Sequence[str]
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def start(self, instance_id: str) -> subprocess.Popen[bytes]:
        """Start a worker's process. Raises OSError."""
        folder = self.folder / instance_id
        folder.mkdir(parents=True, exist_ok=True)
        command = [each.replace("{id}", instance_id) for each in self.command]
        if sys.platform == "linux":
            command = [sys.executable, "-c", DIE_WITH_PARENT, str(os.getpid()), *command]
        environ = {name: value.replace("{id}", instance_id) for name, value in self.environ.items()}
        with (folder / "output").open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - what the operator's own command line says
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | environ,
                start_new_session=True,  # a Ctrl-C is for the parent, which then stops this one
            )


@dataclass(slots=True, kw_only=True)
class _Worker:
    instance_id: str
    launched_s: float
    boots_at: float
    process: subprocess.Popen[bytes] | None = None
    reclaimed_at: float = math.inf
    """When it is taken away, whatever it does."""
    told_at: float | None = None
    ended_at: float | None = None

    @property
    def counts(self) -> bool:
        return self.told_at is None and self.ended_at is None

    @property
    def life(self) -> Life:
        if not self.counts:
            return Life.ENDING
        return Life.PENDING if self.process is None else Life.RUNNING


class Workers:
    """The processes and their target. `tick` does all starting and reaping, always on one thread; the rest is safe for
    any. Its moments (`now`) are of the monotonic clock.
    """

    def __init__(self, recipe: Recipe, *, boot_s: float, on_launch: Callable[[str], object] = lambda _: None) -> None:
        self._recipe = recipe
        self._on_launch = on_launch
        self._boot_s = boot_s
        self._lock = threading.Lock()
        self._target = 0
        self._workers: dict[str, _Worker] = {}
        self._died_at = float("-inf")
        self._trouble = ""

    def view(self) -> FleetView:
        """Return the fleet."""
        with self._lock:
            members = tuple(
                Member(instance_id=each.instance_id, life=each.life, launched_s=each.launched_s)
                for each in self._workers.values()
            )
            return FleetView(condition=Condition.ACTIVE, target=self._target, members=members, trouble=self._trouble)

    def set_target(self, capacity: int) -> None:
        """Keep so many workers; more are left alone."""
        with self._lock:
            self._target = capacity

    def end(self, instance_ids: Sequence[str], *, now: float) -> None:
        """Have workers stopped; one that is unknown or has ended is passed over."""
        with self._lock:
            for one in instance_ids:
                worker = self._workers.get(one)
                if worker is not None and worker.counts:
                    worker.told_at = now
                    _signal(worker, signal.SIGTERM)

    def reclaim(self, instance_id: str, *, at: float) -> None:
        """Take a worker away at that moment, as EC2 takes a Spot instance. Raises KeyError for an unknown one."""
        with self._lock:
            self._workers[instance_id].reclaimed_at = at

    def tick(self, *, now: float) -> None:
        """Bring the processes nearer to what is wanted."""
        with self._lock:
            for worker in self._workers.values():
                self._look_after(worker, now)
            self._workers = {
                one: worker
                for one, worker in self._workers.items()
                if worker.ended_at is None or now - worker.ended_at < SHOWN_ENDED_S
            }
            if now - self._died_at > SHOWN_ENDED_S:
                self._trouble = ""
            missing = self._target - sum(worker.counts for worker in self._workers.values())
            if missing > 0 and now - self._died_at >= AFTER_DEATH_S:
                for _ in range(missing):
                    self._launch(now)

    def close(self, *, grace_s: float = CLOSE_GRACE_S) -> None:
        """Stop all workers, and kill those that are left after the grace."""
        with self._lock:
            self._target = 0
            running = [each for each in self._workers.values() if each.process is not None]
            for worker in running:
                _signal(worker, signal.SIGTERM)
            end_at = time.monotonic() + grace_s
            for worker in running:
                if worker.process is None:
                    continue
                try:
                    worker.process.wait(max(0.0, end_at - time.monotonic()))
                except subprocess.TimeoutExpired:
                    _signal(worker, signal.SIGKILL)
                    worker.process.wait()

    def _launch(self, now: float) -> None:
        instance_id = f"local-{secrets.token_hex(4)}"
        self._workers[instance_id] = _Worker(
            instance_id=instance_id, launched_s=time.time(), boots_at=now + self._boot_s
        )
        self._on_launch(instance_id)

    def _look_after(self, worker: _Worker, now: float) -> None:
        process = worker.process
        if worker.ended_at is not None:
            return
        if now >= worker.reclaimed_at and worker.counts:
            worker.told_at = now
            _signal(worker, signal.SIGKILL)
        if process is None:
            if worker.told_at is not None:
                worker.ended_at = now
            elif now >= worker.boots_at:
                self._boot(worker, now)
        elif process.poll() is not None:
            worker.ended_at = now
            if worker.told_at is None:
                self._died(worker, f"ended by itself with {process.returncode}", now)
        elif worker.told_at is not None and now - worker.told_at > STOP_GRACE_S:
            _signal(worker, signal.SIGKILL)

    def _boot(self, worker: _Worker, now: float) -> None:
        try:
            worker.process = self._recipe.start(worker.instance_id)
        except OSError as error:
            worker.ended_at = now
            self._died(worker, f"could not be started: {error}", now)

    def _died(self, worker: _Worker, how: str, now: float) -> None:
        self._died_at = now
        self._trouble = f"{worker.instance_id} {how}; see {self._recipe.folder / worker.instance_id / 'output'}"


def _signal(worker: _Worker, number: signal.Signals) -> None:
    if worker.process is not None and worker.process.poll() is None:
        worker.process.send_signal(number)
