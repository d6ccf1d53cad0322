"""conf.ini and the environment → one frozen, validated Settings, or all faults at once;
it opens nothing but that file.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from scheduler import config_engines
from scheduler import config_syntax as syntax
from scheduler.config_engines import ConfiguredEngine
from scheduler.config_file import Entry, IniFile, expand, parse, plain
from scheduler.config_sections import (
    SECTIONS,
    Autoscaling,
    Aws,
    Engines,
    Inputs,
    Notify,
    Scheduler,
    SdApi,
    Section,
    bounds,
    is_list,
    is_secret,
    samples,
)
from scheduler.domain.errors import ConfigError

PREFIX = "SCHEDULER_"
FILE_VARIABLE = "SCHEDULER_CONFIG"
DEFAULT_FILE = Path("conf.ini")
MAX_SHOWN_CHARS = 120
_LAST = sys.maxsize
"""The line of what stands on none: it is reported after what does."""

_KEYS = {(section, key): info for section, model in SECTIONS.items() for key, info in model.model_fields.items()}
OPEN = {section: model.open for section, model in SECTIONS.items() if model.open is not None}
"""What any key means in the sections whose keys are names that the user gives."""
ALIASES = {(section, name): key for section, model in SECTIONS.items() for name, key in model.also.items()}
WEBUI = ("sd_api", "sd_api_base_url")
_VARIABLES = {f"{PREFIX}{section}_{key}".upper(): (section, key) for section, key in (*_KEYS, *ALIASES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration. `file` is the one that was read, None when all came from the environment.

    `sources` tells where each (section, key) that was given came from: ``file:line`` or the variable's name.
    """

    aws: Aws
    sd_api: SdApi
    engines: Engines
    scheduler: Scheduler
    inputs: Inputs
    notify: Notify
    autoscaling: Autoscaling
    file: Path | None
    sources: Mapping[tuple[str, str], str] = field(repr=False)

    @property
    def state_table(self) -> str:
        """The table of the fleet's state."""
        return self.autoscaling.state_table or f"{self.aws.dynamodb_table}-fleet"

    @property
    def served(self) -> dict[str, syntax.EngineLine]:
        """What serves each runtime, in the order in which tasks without one look for an engine.

        Where [engines] names any, the WebUI of [sd_api] is there only if its address is given.
        """
        return _served(self.sd_api, self.engines, self.sources)

    @property
    def secrets(self) -> list[str]:
        """What may be shown to nobody, and in no log."""
        return [self.sd_api.api_auth.get_secret_value(), self.notify.webhook_secret.get_secret_value()]

    @property
    def configured_engines(self) -> list[ConfiguredEngine]:
        """The engines of this host, in the order in which tasks without a runtime look for one."""
        return config_engines.configured(self.served)

    @property
    def has_webui(self) -> bool:
        """Whether the WebUI of [sd_api] is one of them."""
        return bool(config_engines.webui_runtimes(self.engines, is_given=WEBUI in self.sources))

    @property
    def input_buckets(self) -> tuple[str, ...]:
        """The buckets that tasks may name inputs from."""
        return self.inputs.allow_buckets or (self.aws.s3_bucket,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """One value as it was given, under which name, and where."""

    name: str
    text: str
    source: str
    line: int = _LAST


_GivenKeys = dict[tuple[str, str], _Given]


class _Faults:
    """Collects what is wrong, one line each, in the order of the file."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, source: str, what: str, *, line: int = _LAST) -> None:
        self._found.append((line, f"{source}: {what}"))

    def add_value(self, section: str, key: str, given: _Given, what: str) -> None:
        shown = "***" if is_secret(info_of(section, key)) else _quoted(given.text)
        self.add(given.source, f"[{section}] {given.name} = {shown}: {what}", line=given.line)

    def in_order(self) -> list[str]:
        return [text for _, text in sorted(self._found, key=lambda found: found[0])]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the file (`path`, else ``$SCHEDULER_CONFIG``, else ``./conf.ini``) and the overrides in `environ`.

    The file may be absent when `environ` gives every required key. Raises ConfigError with everything that is
    wrong; no problem shows a secret.
    """
    wanted = path or Path(environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    faults = _Faults()
    ini = _read(wanted)
    given = _from_file(ini, wanted, faults) if ini else {}
    given |= _from_environment(environ, given, faults)
    if ini is None and any(info.is_required() and key not in given for key, info in _KEYS.items()):
        faults.add(
            str(wanted),
            'no such file; make it with "cp conf.template.ini conf.ini" (or "sd-scheduler config template -c conf.ini") '
            f"and fill in [aws], or name another with -c FILE or {FILE_VARIABLE}",
        )
    file = wanted if ini else None
    sections: dict[str, Any] = {
        name: _section(name, model, given, environ, faults, file=file) for name, model in SECTIONS.items()
    }
    if sections["sd_api"] and sections["engines"]:
        lines = _served(sections["sd_api"], sections["engines"], given)
        for name, what in config_engines.faults(lines).items():
            faults.add_value("engines", name, given["engines", name], what)
    if None in sections.values() or faults.in_order():
        raise ConfigError(faults.in_order())
    return Settings(
        **sections,
        file=file,
        sources=MappingProxyType({key: value.source for key, value in given.items()}),
    )


def hide_login(url: str) -> str:
    """Return `url` (or text that holds some) with everything between ``//`` and the last ``@`` hidden."""
    return re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)


def _read(path: Path) -> IniFile | None:
    """Parse the file; None when there is none. Raises ConfigError when it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8; save the file in that encoding"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    raise ConfigError([f"{path}: {problem}"])


def _from_file(ini: IniFile, file: Path, faults: _Faults) -> _GivenKeys:
    for line, what in ini.faults:
        faults.add(f"{file}:{line}", what, line=line)
    for section, line in ini.sections:
        if section not in SECTIONS:
            hint = _nearest(section, SECTIONS, "[{}]")
            faults.add(f"{file}:{line}", f"[{repr(section)[1:-1]}] is no section; {hint}", line=line)
    given: _GivenKeys = {}
    for entry in ini.entries:
        if entry.section not in SECTIONS:
            continue
        place = (entry.section, ALIASES.get((entry.section, entry.key), entry.key))
        source = f"{file}:{entry.line}"
        if entry.section in OPEN and not syntax.RUNTIME.fullmatch(entry.key):
            what = f"[{entry.section}] {plain(entry.key)} is no runtime's name: {syntax.RIGHT_RUNTIME}"
            faults.add(source, what, line=entry.line)
        elif place not in _KEYS and entry.section not in OPEN:
            what = f"[{entry.section}] {plain(entry.key)} is no key; {_home(*place)}"
            faults.add(source, what, line=entry.line)
        elif place in given:
            what = (
                f"[{entry.section}] {entry.key} says the same as {given[place].name} in {given[place].source}; keep one"
            )
            faults.add(source, what, line=entry.line)
        else:
            given[place] = _Given(
                name=entry.key, text=_own_lines(entry, place, faults, source), source=source, line=entry.line
            )
    return given


def _own_lines(entry: Entry, place: tuple[str, str], faults: _Faults, source: str) -> str:
    """Return the entry's value, without following lines that are part of it by a slip of indentation alone."""
    first, _, rest = entry.value.partition("\n")
    if not rest or (is_list(info_of(*place)) and "=" not in rest):
        return entry.value
    what = "the next line is indented, which makes it part of this value; remove its indentation"
    faults.add(source, f"[{entry.section}] {entry.key}: {what}", line=entry.line)
    return first


def _served(api: SdApi, engines: Engines, given: Mapping[tuple[str, str], object]) -> dict[str, syntax.EngineLine]:
    return config_engines.served(api, engines, is_given=WEBUI in given)


def _from_environment(environ: Mapping[str, str], in_file: _GivenKeys, faults: _Faults) -> _GivenKeys:
    given: _GivenKeys = {}
    for variable, text in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        section, _, name = variable[len(PREFIX) :].partition("_")
        if section.lower() in OPEN and name:
            section = section.lower()
            try:
                name = config_engines.meant(name, [key for home, key in in_file if home == section])
            except ValueError as error:
                faults.add(variable, str(error))
                continue
        elif variable.upper() in _VARIABLES:
            section, name = _VARIABLES[variable.upper()]
        else:
            faults.add(variable, f"is no setting; {_nearest_variable(variable)}")
            continue
        place = (section, ALIASES.get((section, name), name))
        if place in given:
            faults.add(variable, f"says the same as {given[place].source}; keep one")
        else:
            given[place] = _Given(name=name, text=text, source=variable)
    return given


def _section(
    name: str,
    model: type[Section],
    given: _GivenKeys,
    environ: Mapping[str, str],
    faults: _Faults,
    *,
    file: Path | None,
) -> Section | None:
    """Validate one section; None when it has faults. With no `file` a missing key is not reported again."""
    texts: dict[str, str] = {}
    spoiled: set[str] = set()
    for key, value in ((key, value) for (section, key), value in given.items() if section == name):
        # What comes from the environment went through a shell's expansion already, and is taken as it is.
        texts[key], wrong = expand(value.text, environ) if value.line != _LAST else (value.text, [])
        for what in wrong:
            faults.add_value(name, key, value, what)
            spoiled.add(key)
    try:
        return model.model_validate({key: text for key, text in texts.items() if key not in spoiled})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        key = str(detail["loc"][0])
        if detail["type"] != "missing" and (name, key) not in given:  # a default that other keys make wrong
            right = _what_is_right(name, key, detail, "")
            faults.add(str(file or name), f"[{name}] {key} is not given, and its default does not do: {right}")
        elif detail["type"] != "missing":
            value = given[name, key]
            expanded = _Given(name=value.name, text=texts[key], source=value.source, line=value.line)
            faults.add_value(name, key, expanded, _what_is_right(name, key, detail, texts[key]))
        elif file and key not in spoiled:
            info = _KEYS[name, key]
            faults.add(
                str(file), f"[{name}] {key} is missing: {info.description} Example: {key} = {samples(model)[key]}"
            )
    return None


def _what_is_right(section: str, key: str, detail: ErrorDetails, text: str) -> str:
    said = detail.get("ctx", {}).get("error")
    right = str(said) if isinstance(said, ValueError) else f"expected {bounds(info_of(section, key))}"
    return f"{right} (a comment needs a line of its own)" if re.search(r"\s[#;]", text) else right


def info_of(section: str, key: str) -> FieldInfo:
    """Return what is known of a key that its section has or lets the user name."""
    return _KEYS.get((section, key)) or OPEN[section]


def _home(section: str, key: str) -> str:
    """Say where an unknown key of a section belongs, or what it may have been meant to be."""
    if other := next((name for name, known in (*_KEYS, *ALIASES) if known == key), None):
        return f"it belongs into [{other}]"
    return _nearest(key, [known for name, known in (*_KEYS, *ALIASES) if name == section], "{}")


def _nearest_variable(variable: str) -> str:
    """Say which variable may have been meant; what all of them begin with likens none to another."""
    known = {name.removeprefix(PREFIX): name for name in (*_VARIABLES, FILE_VARIABLE)}
    near = difflib.get_close_matches(variable[len(PREFIX) :].upper(), known, n=1, cutoff=0.6)
    return f"did you mean {known[near[0]]}?" if near else "see sd-scheduler config template"


def _nearest(name: str, known: Iterable[str], form: str) -> str:
    """Say which of the `known` names comes nearest, or which there are."""
    spelled = {word.lower(): word for word in known}
    if near := difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5):
        return f"did you mean {form.format(spelled[near[0]])}?"
    return f"known are {', '.join(form.format(word) for word in spelled.values())}"


def _quoted(text: str) -> str:
    """Return a value fit for one line of a report: no login, no second line, bounded."""
    first, more, _ = hide_login(text).partition("\n")
    return f"{first[:MAX_SHOWN_CHARS]!r}{'...' if more or len(first) > MAX_SHOWN_CHARS else ''}"
