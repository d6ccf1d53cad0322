"""The engines that [sd_api] and [engines] come to: kinds, names, addresses; it builds none of them and asks none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.config_sections import Engines, SdApi
from scheduler.config_syntax import ENGINE_KINDS, RIGHT_RUNTIME, RUNTIME, EngineLine

WEBUI_RUNTIMES = ("sdwebui", "legacy")
"""The names of the WebUI of [sd_api], where [engines] does not give them to another."""
KIND_OF_NAME = {kind: kind for kind in ENGINE_KINDS} | dict.fromkeys(WEBUI_RUNTIMES, "sdwebui")
"""Names by which senders mean a kind: `legacy` is what stands for the WebUI in messages of v1alpha1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredEngine:
    """One engine: the first of a runtime bears its name, the others a number besides; `runtimes` are all its names."""

    kind: str
    name: str
    base_url: str
    runtimes: tuple[str, ...]
    restart_command: tuple[str, ...]

    def __str__(self) -> str:
        also = f", for tasks that ask for {' or '.join(self.runtimes)}" if self.runtimes != (self.name,) else ""
        return f"{self.name}: {self.kind} at {self.base_url}{also}"


def webui_runtimes(engines: Engines, *, is_given: bool) -> tuple[str, ...]:
    """Return the names that the WebUI of [sd_api] serves; none when it is not in use.

    Where [engines] names any engine, that WebUI is there only if its address `is_given`.
    """
    names = tuple(name for name in WEBUI_RUNTIMES if name not in engines.lines)
    return names if is_given or not engines.lines else ()


def served(api: SdApi, engines: Engines, *, is_given: bool) -> dict[str, EngineLine]:
    """Return each runtime with what serves it, in the order in which tasks without a runtime look for an engine."""
    webui = EngineLine("sdwebui", api.sd_api_base_url, api.restart_command)
    return dict.fromkeys(webui_runtimes(engines, is_given=is_given), webui) | engines.lines


def configured(named: Mapping[str, EngineLine]) -> list[ConfiguredEngine]:
    """Return an engine for each address; one under several names serves them all."""
    runtimes: dict[tuple[str, str], list[str]] = {}
    commands: dict[tuple[str, str], tuple[str, ...]] = {}
    for name, line in named.items():
        for url in line.base_urls:
            runtimes.setdefault((line.kind, url), []).append(name)
            commands[line.kind, url] = commands.get((line.kind, url), ()) or line.restart_command
    found: list[ConfiguredEngine] = []
    for (kind, url), names in runtimes.items():
        number = 1 + sum(names[0] in engine.runtimes for engine in found)
        found.append(
            ConfiguredEngine(
                kind=kind,
                name=names[0] if number == 1 else f"{names[0]}-{number}",
                base_url=url,
                runtimes=tuple(names),
                restart_command=commands[kind, url],
            )
        )
    return found


def faults(named: Mapping[str, EngineLine]) -> dict[str, str]:
    """Return what is wrong with the engines of several lines together, by name: what no line shows alone."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, line in named.items():
        kind = KIND_OF_NAME.get(name, line.kind)
        if kind != line.kind:
            found[name] = f"tasks that ask for {name} mean a {kind}: give this {line.kind} another name"
            continue
        for url in line.base_urls:
            other = first.setdefault(url, name)
            if named[other].kind != line.kind:
                found[name] = f"{url} is {other}'s, a {named[other].kind}: an address has one kind of engine"
    return found


def meant(name: str, known: Sequence[str]) -> str:
    """Return the engine that the `name` of a variable means: a known one, whatever its case, else a new one in lower
    case.

    Raises ValueError, saying what would be right, for one that several might be, or that none can have.
    """
    if not RUNTIME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no runtime's name: {RIGHT_RUNTIME}")
    near = [name] if name in known else [other for other in known if other.lower() == name.lower()]
    if len(near) > 1:
        raise ValueError(f"it may mean {' or '.join(near)}: spell it like the one that is meant")
    return near[0] if near else name.lower()
