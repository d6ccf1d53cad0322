"""What an A1111 engine calls its checkpoints, samplers and schedules, and what clients call them: pure look-ups."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_NAME_CHARS = 300
"""No checkpoint, sampler or schedule has a longer name; what is longer is not looked up."""
_EXTENSION = re.compile(r"\.(safetensors|ckpt|pt|pth|gguf)$", re.IGNORECASE)
_LISTED = 8
"""Names that a refusal quotes at most."""

SCHEDULES = (
    *("Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal"),
    *("Align Your Steps", "Simple", "Normal", "DDIM", "Beta"),
)
"""The schedules of A1111 1.10, for engines that do not list theirs."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model. Its title changes when its hash becomes known; `names` and `hash` say whether it is the same."""

    title: str
    names: frozenset[str]
    hash: str | None

    def made(self, model_name: str | None, model_hash: str | None) -> bool | None:
        """Tell whether an answer that names this model and hash came from it; None when it does not say enough."""
        if model_hash and self.hash:
            return model_hash.casefold() == self.hash.casefold()
        return model_name in self.names if model_name else None


class Checkpoints:
    """The engine's checkpoints, found by any of their names; immutable."""

    def __init__(self, listed: Iterable[Mapping[str, Any]]) -> None:
        entries = [entry for entry in listed if isinstance(entry.get("title"), str)]
        self.all = tuple(checkpoint_of(entry) for entry in entries)
        self._by_name: dict[str, Checkpoint | None] = {}
        # The surer a kind of name, the earlier it takes its place; a name that two share in the same kind finds
        # neither, for nobody could say which was meant.
        for rank in zip(*(_ranked_names(entry) for entry in entries), strict=True):
            taken: dict[str, Checkpoint | None] = {}
            for names, checkpoint in zip(rank, self.all, strict=True):
                for name in names:
                    taken[name] = checkpoint if taken.get(name, checkpoint) is checkpoint else None
            self._by_name = taken | self._by_name
        self._by_folded = {name.casefold(): checkpoint for name, checkpoint in self._by_name.items()}

    def find(self, name: str) -> Checkpoint | None:
        """Return the checkpoint of that title, name, file (with folders or not) or hash; None if there is none."""
        if len(name) > MAX_NAME_CHARS:
            return None
        name = name.strip().replace("\\", "/")
        file = without_hash(name)
        found = self._look_up(name) or self._look_up(file)
        if found is None and "/" in file:
            found = self._look_up(_basename(file))
            if found is not None and not _bare(file).endswith("/" + _bare(_file(found.title))):
                return None  # a file of that name in another folder is another model
        return found if found is None or _hash_agrees(name, found) else None

    def _look_up(self, name: str) -> Checkpoint | None:
        return self._by_name.get(name) or self._by_folded.get(name.casefold())

    def near(self, name: str) -> str:
        """Return some titles for people to choose from, the likeliest first."""
        return near(name, [checkpoint.title for checkpoint in self.all])


class Samplers:
    """The engine's samplers and schedules; immutable."""

    def __init__(self, listed: Iterable[Mapping[str, Any]], schedules: Iterable[Mapping[str, Any]] | None) -> None:
        named = [(entry["name"], entry.get("aliases")) for entry in listed if isinstance(entry.get("name"), str)]
        self._names = {fold(alias): name for name, aliases in named for alias in _strings(aliases)}
        self._names |= {fold(name): name for name, _ in named}
        self._knows_schedules = schedules is not None
        self._schedules: dict[str, str] = {fold(label): label for label in SCHEDULES}
        if schedules is not None:
            self._schedules = {}
            for entry in schedules:
                label = entry.get("label") or entry.get("name")
                if isinstance(label, str):
                    for alias in (*_strings(entry.get("aliases")), *_strings([entry.get("name")]), label):
                        self._schedules[fold(alias)] = label

    def find(self, name: str) -> tuple[str, str | None] | None:
        """Return the engine's own (sampler, schedule) for a name of any kind, None if it has none such.

        An old combined name ("DPM++ 2M Karras") is the sampler and the schedule, unless the engine has it as it is.
        """
        folded = fold(name)
        if folded in self._names:
            return self._names[folded], None
        for schedule, label in self._schedules.items():
            if folded.endswith(schedule) and folded.removesuffix(schedule) in self._names:
                return self._names[folded.removesuffix(schedule)], label
        return None

    def schedule(self, name: str) -> str | None:
        """Return the engine's own label of a schedule, None if it lists its schedules and has none such."""
        return self._schedules.get(fold(name)) or (None if self._knows_schedules else name)

    def near(self, name: str) -> str:
        """Return some samplers for people to choose from, the likeliest first."""
        return near(name, sorted(set(self._names.values())))

    def near_schedule(self, name: str) -> str:
        """Return some schedules for people to choose from, the likeliest first."""
        return near(name, sorted(set(self._schedules.values())))


def fold(name: str) -> str:
    """Return a sampler's name without case, spaces and punctuation, for builds differ in these."""
    return re.sub(r"[^a-z0-9+]", "", name.casefold())


def same_sampler(asked: str, used: str) -> bool:
    """Tell whether two names mean one sampler, schedules at their ends aside."""
    return not _bases(asked).isdisjoint(_bases(used))


def near(name: str, known: Sequence[str]) -> str:
    """Return at most eight of `known` as text, those like `name` first."""
    if not known:
        return "none"
    folded = {one.casefold(): one for one in known}
    close = [folded[one] for one in difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.5)]
    shown = [*close, *(one for one in known if one not in close)][:_LISTED]
    more = len(known) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _bases(name: str) -> set[str]:
    folded = fold(name)
    ends = (fold(schedule) for schedule in SCHEDULES)
    return {folded} | {folded.removesuffix(end) for end in ends if folded.endswith(end) and folded != end}


def _strings(values: Any) -> list[str]:
    return [value for value in values or [] if isinstance(value, str) and value]


def _basename(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def shown_hash(name: str) -> str | None:
    """Return the hash that a title shows at its end, ``model.safetensors [3471f22757]``; None if it shows none."""
    start = name.rfind("[")
    if start < 0 or not name.endswith("]"):
        return None
    inner = name[start + 1 : -1]
    return inner if inner and all(c in "0123456789abcdefABCDEF" for c in inner) else None


def without_hash(name: str) -> str:
    """Return a title without the hash that it shows."""
    return name if shown_hash(name) is None else name[: name.rfind("[")].rstrip()


def _bare(name: str) -> str:
    return _EXTENSION.sub("", name)


def _file(title: str) -> str:
    return without_hash(title).replace("\\", "/")


def _ranked_names(entry: Mapping[str, Any]) -> tuple[list[str], ...]:
    """Return the names of a listed checkpoint in four ranks, the surest first."""
    title = str(entry["title"])
    file = _file(title)
    filename = _strings([entry.get("filename")])
    return (
        [title, file, *filename],
        [*_strings([entry.get("model_name")]), _bare(file)],
        _strings([entry.get("sha256"), entry.get("hash")]),
        [short for path in (file, *filename) for short in (_basename(path), _bare(_basename(path)))],
    )


def checkpoint_of(entry: Mapping[str, Any]) -> Checkpoint:
    """Return what an entry of the engine's list says; its title alone will do."""
    names = frozenset(name for rank in _ranked_names(entry) for name in rank)
    shown = shown_hash(str(entry["title"]))
    hashes = [shown] if shown else _strings([entry.get("hash"), entry.get("sha256")])
    known = hashes[0][:10] if hashes else None
    return Checkpoint(str(entry["title"]), names, known)


def _hash_agrees(name: str, found: Checkpoint) -> bool:
    """Tell whether a hash written in `name` is the one found: same file name, other content is another model."""
    shown = shown_hash(name)
    return shown is None or found.hash is None or shown.lower() == found.hash.lower()
