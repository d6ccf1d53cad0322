"""The engines that the settings name, one for each base URL."""

from __future__ import annotations

from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.ports import Engine
from scheduler.engines.sdwebui import SdWebUiEngine
from scheduler.sd_api_client import SdApiClient


def build_engines(settings: Settings) -> list[Engine]:
    """Return an engine for each `sd_api_base_url`; the first is `sdwebui`, the others bear a number."""
    api, scheduler = settings.sd_api, settings.scheduler
    user, _, password = api.api_auth.get_secret_value().partition(":")
    return [
        SdWebUiEngine(
            "sdwebui" if n == 1 else f"sdwebui-{n}",
            SdApiClient(url, (user, password) if user else None),
            clock=SystemClock(),
            max_pixels=scheduler.max_pixels,
            restart_command=api.restart_command,
        )
        for n, url in enumerate(api.sd_api_base_url, start=1)
    ]
