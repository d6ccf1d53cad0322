"""[autoscaling] while the daemon runs: an edit of conf.ini is taken up within a tick, told, and followed by all hosts.

The section that was written last is published in the fleet's table, and everybody follows it, whoever leads: by the
time of its file's last change, so that neither an old host nor a new image with an older file undoes an edit. What
locates the fleet is each host's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from scheduler import config
from scheduler.autoscale.book import Published
from scheduler.autoscale.ports import FleetState
from scheduler.config import Settings
from scheduler.config_sections import Autoscaling
from scheduler.domain.errors import ConfigError

log = structlog.get_logger()
OWN_KEYS = frozenset({"enabled", "fleet", "fleet_id", "state_table"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The section in force, and its published version."""

    section: Autoscaling
    version: int


class SettingsWatch:
    """One host's view of the section. One loop calls `followed`."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        host: str,
        state: FleetState,
        publishes: bool = True,
    ) -> None:
        """Without `publishes`, for a rehearsal, the newest section holds here and is told in `unpublished` only."""
        self._file = settings.file
        self._environ = environ
        self._host = host
        self._state = state
        self._publishes = publishes
        self._own = settings.autoscaling
        self._stamp = _stamp(self._file)
        self._modified_s = self._stamp[0] if self._stamp else 0.0
        """When what holds here was written: a file that was refused since does not make it newer."""
        self._told: int | None = None
        self.settings_no = 0
        """The published version, if it is what stands in this host's file, else 0."""
        self.unpublished: tuple[str, ...] = ()
        """What this host's file would change for all, one line a key, where it may not publish."""

    def followed(self) -> Followed:
        """Read the file if it has changed, publish it if it is the newest,
        and return what holds. Raises Unavailable.
        """
        self._look_at_the_file()
        published = self._state.published()
        own = _common(self._own)
        if published is None or (own != published.values and self._modified_s > published.modified_s):
            newer = Published(
                version=(published.version if published else 0) + 1,
                modified_s=self._modified_s,
                by=self._host,
                values=own,
            )
            if not self._publishes:
                self.unpublished = tuple(_changes(published.values, own)) if published else ("all of it, as the first",)
                published = newer
            elif self._state.publish(newer, seen=published.version if published else None):
                changes = _changes(published.values if published else {}, own)
                log.info("autoscaling_published", version=newer.version, file=str(self._file), changes=changes)
                published = newer
            else:
                published = self._state.published() or newer
        is_own = own == dict(published.values)
        self.settings_no = published.version if is_own else 0
        if not is_own and self._told != published.version:
            self._told = published.version
            log.warning(
                "autoscaling_follows_another",
                version=published.version,
                published_by=published.by,
                differs=_changes(own, published.values),
            )
        return Followed(section=self._merged(published), version=published.version)

    def _look_at_the_file(self) -> None:
        stamp = _stamp(self._file)
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        edited = self._read()
        if edited is None:
            return
        self._modified_s = stamp[0]
        moved = [key for key in OWN_KEYS if getattr(edited, key) != getattr(self._own, key)]
        if moved:
            log.warning("autoscaling_needs_restart", keys=sorted(moved))
        changes = _changes(_common(self._own), _common(edited))
        if changes:
            log.info("autoscaling_edited", changes=changes)
        self._own = edited.model_copy(update={key: getattr(self._own, key) for key in OWN_KEYS})

    def _read(self) -> Autoscaling | None:
        try:
            return config.load(self._file, self._environ).autoscaling
        except ConfigError as error:
            problems = error.problems
        log.error("autoscaling_refused", problems=problems, advice="the last good settings stay in force")
        return None

    def _merged(self, published: Published) -> Autoscaling:
        """Return the published section with what is this host's own; a key unknown to this version stops it."""
        own = {key: value for key, value in self._own.shown().items() if key in OWN_KEYS}
        try:
            return Autoscaling.model_validate(own | dict(published.values))
        except ValidationError as error:
            keys = [str(detail["loc"][0]) for detail in error.errors(include_url=False, include_input=False)]
        log.error("autoscaling_not_understood", version=published.version, by=published.by, keys=keys)
        return self._own


def _stamp(file: Path | None) -> tuple[float, int] | None:
    """Return when a file was changed last and its size; None when there is none."""
    try:
        found = file.stat() if file else None
    except OSError:
        return None
    return (found.st_mtime, found.st_size) if found else None


def _common(section: Autoscaling) -> dict[str, str]:
    return {key: value for key, value in section.shown().items() if key not in OWN_KEYS}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return one line for each key that differs."""
    keys = sorted({*before, *after})
    return [
        f"{key}: {before.get(key, '-')} -> {after.get(key, '-')}" for key in keys if before.get(key) != after.get(key)
    ]
