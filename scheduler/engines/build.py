"""The engines of this host, as the settings name them: the only place that knows what makes each kind of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from scheduler.config import Settings
from scheduler.domain.clock import SystemClock
from scheduler.domain.ports import Engine, Inputs
from scheduler.engines.comfyui import ComfyUiEngine
from scheduler.engines.comfyui_client import ComfyClient
from scheduler.engines.job_api import JobApiEngine
from scheduler.engines.job_api_client import JobApiClient
from scheduler.engines.sdwebui import SdWebUiEngine
from scheduler.sd_api_client import SdApiClient


def build_engines(settings: Settings, inputs: Inputs) -> list[Engine]:
    """Return the engines of the settings, in the order in which tasks without a runtime look for one."""
    built: list[Engine] = []
    for wanted in settings.configured_engines:
        order = _Order(
            settings=settings,
            inputs=inputs,
            name=wanted.name,
            url=wanted.base_url,
            runtimes=frozenset(wanted.runtimes),
            restart_command=wanted.restart_command,
        )
        built.append(_KINDS[wanted.kind](order))
    return built


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One engine to build."""

    settings: Settings
    inputs: Inputs
    name: str
    url: str
    runtimes: frozenset[str]
    restart_command: tuple[str, ...]


def _webui(order: _Order) -> Engine:
    user, _, password = order.settings.sd_api.api_auth.get_secret_value().partition(":")
    return SdWebUiEngine(
        order.name,
        SdApiClient(order.url, (user, password) if user else None),
        clock=SystemClock(),
        max_pixels=order.settings.scheduler.max_pixels,
        inputs=order.inputs,
        runtimes=order.runtimes,
        restart_command=order.restart_command,
    )


def _comfyui(order: _Order) -> Engine:
    return ComfyUiEngine(
        order.name,
        ComfyClient(order.url),
        clock=SystemClock(),
        max_pixels=order.settings.scheduler.max_pixels,
        inputs=order.inputs,
        runtimes=order.runtimes,
        client_id=f"sd-scheduler-{socket.gethostname()}-{order.name}",  # what an earlier process left is known by it
        restart_command=order.restart_command,
    )


def _job_api(order: _Order) -> Engine:
    return JobApiEngine(
        order.name,
        JobApiClient(order.url),
        clock=SystemClock(),
        inputs=order.inputs,
        runtimes=order.runtimes,
        restart_command=order.restart_command,
    )


_KINDS: dict[str, Callable[[_Order], Engine]] = {"sdwebui": _webui, "comfyui": _comfyui, "job_api": _job_api}
