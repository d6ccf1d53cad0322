"""What is known of an A1111 engine's checkpoints and samplers, asked anew only when there is reason to."""

from __future__ import annotations

from typing import Any

from scheduler.domain.errors import EngineDown, Rejected, Transient
from scheduler.domain.ports import Clock
from scheduler.domain.task import Task
from scheduler.engines.sdwebui_names import Checkpoint, Checkpoints, Samplers
from scheduler.engines.sdwebui_payload import wanted_checkpoint
from scheduler.sd_api_client import NoSuchRoute, SdApiClient
from scheduler.wire.json_body import shorten

OPTION = "sd_model_checkpoint"
"""The engine's setting that names the checkpoint."""
OVERRIDE = f"payload.override_settings.{OPTION}"
REFRESH_EVERY_S = 10.0
REFRESH_TIMEOUT_S = 30.0
"""A refresh waits for the running job first."""


class Catalogue:
    """The lists of one engine. They are replaced whole, so that threads may read while another asks."""

    def __init__(self, client: SdApiClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._default: str | None = None
        self._is_current = False
        self._refreshed_s: float | None = None
        self.checkpoints = Checkpoints(())
        self.samplers: Samplers | None = None

    def update(self) -> None:
        """Ask for the default checkpoint, and for the lists unless they are current. Raises EngineDown."""
        option = self._client.options().get(OPTION)
        self._default = option if isinstance(option, str) and option else None
        if not self._is_current:
            self.checkpoints = Checkpoints(self._client.models())
            self.samplers = self._list_samplers()
            self._is_current = True

    def expire(self) -> None:
        """Say that the engine may know others by now."""
        self._is_current = False

    def ensure(self) -> None:
        """Ask for the lists unless they are current. Raises EngineDown."""
        if not self._is_current:
            self.update()

    def title(self, name: str | None) -> str | None:
        """Return the title by any name, None standing for the default; an unknown name as it is. Asks nobody."""
        name = name or self._default
        found = self.checkpoints.find(name) if name else None
        return found.title if found else name

    def choose(self, task: Task, body: dict[str, Any]) -> str | None:
        """Put the engine's title of the checkpoint that `task` wants into `body`; return it, None if it names none.

        The engine's own option is never touched: it would outlive the task, and decide for tasks that name none.
        Raises as `find` does.
        """
        overrides = dict(body.get("override_settings") or {})
        asked = overrides.get(OPTION)
        if asked and not isinstance(asked, str):
            raise self._unknown(asked, OVERRIDE)
        name = wanted_checkpoint(task)
        if not name:
            return None
        title = self.find(name, OVERRIDE if asked else "checkpoint").title
        body["override_settings"] = overrides | {OPTION: title}
        return title

    def find(self, name: str, field: str) -> Checkpoint:
        """Return the checkpoint `name`, asking the engine to look again if need be.

        Raises Rejected for `field`, EngineDown, or Transient when the engine is too busy to look.
        """
        self.ensure()
        found = self.checkpoints.find(name)
        if found is None:
            self.checkpoints = Checkpoints(self._client.models())
            found = self.checkpoints.find(name)
        if found is None and self._refresh():
            found = self.checkpoints.find(name)
        if found is None:
            raise self._unknown(name, field)
        return found

    def _unknown(self, name: object, field: str) -> Rejected:
        known = self.checkpoints.near(str(name))
        return Rejected(
            f"{field} is {shorten(name)}: the engine has no such checkpoint; it has {known}",
            field=field,
        )

    def _refresh(self) -> bool:
        """Make the engine read its folder again, but not often; return whether it did."""
        now = self._clock.monotonic()
        if self._refreshed_s is not None and now - self._refreshed_s < REFRESH_EVERY_S:
            return False
        self._refreshed_s = now
        try:
            self._client.refresh_checkpoints(REFRESH_TIMEOUT_S)
        except NoSuchRoute:
            return False
        except EngineDown as error:
            self._client.options()  # says so if it is really down
            raise Transient(f"the engine was too busy to look for a checkpoint: {error.message}") from error
        self.checkpoints = Checkpoints(self._client.models())
        return True

    def _list_samplers(self) -> Samplers | None:
        """Return the samplers, None when this build does not list them."""
        try:
            listed = self._client.samplers()
        except NoSuchRoute:
            return None
        schedules: list[dict[str, Any]] | None
        try:
            schedules = self._client.schedulers()
        except NoSuchRoute:
            schedules = None
        return Samplers(listed, schedules) if listed else None
