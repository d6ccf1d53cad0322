"""Reads the text of an INI file into numbered entries, all faults at once; it knows no key and no value's meaning."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_MARK = "\0"
"""Starts the stand-in for a line that was reported already, so that what continues the line has a place to go."""
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One `key = value`, as written, and the line it begins on."""

    section: str
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class IniFile:
    """What a file says: its sections with their lines, its entries in order, and its faults as (line, what is wrong).

    No fault quotes the line, for it may hold a password.
    """

    sections: tuple[tuple[str, int], ...]
    entries: tuple[Entry, ...]
    faults: tuple[tuple[int, str], ...]


def parse(text: str) -> IniFile:
    """Read `text`; never raises. Of a key given twice the first counts, and both parts of a split section do."""
    lines = text.replace(_MARK, "\N{REPLACEMENT CHARACTER}").split("\n")
    faults: list[tuple[int, str]] = []
    while True:
        parser = _parser()
        sections: dict[str, int] = {}
        keys: dict[tuple[str, str], int] = {}
        try:
            parser.read_file(_watched(parser, lines, sections, keys))
            break
        except configparser.Error as error:
            # The parser stops at its first fault: put a harmless line in its place and read again.
            faults.extend(_replace(error, lines))
    return IniFile(
        sections=tuple((name, line) for name, line in sections.items() if not name.startswith(_MARK)),
        entries=tuple(
            Entry(_real_section(section), key, parser.get(section, key), line)
            for (section, key), line in keys.items()
            if not key.startswith(_MARK) and _real_section(section)
        ),
        faults=tuple(sorted(faults)),
    )


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return `text` with each ``${VAR}`` replaced from `environ`, and what is wrong; ``$${`` stands for ``${``."""
    wrong: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if match[0] == "$${":
            return "${"
        if name is None or not _NAME.fullmatch(name):
            wrong.append("write ${NAME} for an environment variable, or $${ for the characters ${")
        elif name not in environ:
            wrong.append(f"environment variable {name} is not set; set it, or write $${{ for the characters ${{")
        else:
            return environ[name]
        return ""

    return _VARIABLE.sub(value, text), wrong


def plain(key: str) -> str:
    """Return a key fit to be shown: one that is no name may be half of a line that lost its ``=``, and secret."""
    return key if _KEY.fullmatch(key) else "(not a name)"


def _parser() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(
        delimiters=("=",),  # a colon is part of every URL
        comment_prefixes=("#", ";"),
        empty_lines_in_values=False,
        default_section="",  # no header can spell this, so that [DEFAULT] is a section like any other
        interpolation=None,
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # the documented way to keep the case of keys
    return parser


def _watched(
    parser: configparser.RawConfigParser, lines: list[str], sections: dict[str, int], keys: dict[tuple[str, str], int]
) -> Iterator[str]:
    """Feed the parser line by line and note what each line added to it; it keeps no line numbers itself."""
    current = ""
    for number, line in enumerate(lines, start=1):
        yield line
        for current in parser.sections()[len(sections) :]:
            sections[current] = number
        for key in parser.options(current) if current else ():
            keys.setdefault((current, key), number)


def _replace(error: configparser.Error, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Give the faults of one `error`, and put stand-ins on their lines."""
    match error:
        case configparser.DuplicateOptionError(lineno=int(number)):
            where = f"[{_real_section(error.section)}] {plain(error.option)}"
            yield number, f"{where} is given a second time; keep one of the two"
            lines[number - 1] = f"{_MARK}{number} ="
        case configparser.DuplicateSectionError(lineno=int(number)):
            yield number, f"[{error.section}] begins a second time; put its keys where it begins first"
            lines[number - 1] = f"[{_MARK}{number}{_MARK}{error.section}]"
        case configparser.MissingSectionHeaderError(lineno=number):
            yield number, "a section header, such as [aws], must come before the first key"
            lines[number - 1] = f"[{_MARK}{number}{_MARK}]"
        case configparser.ParsingError():
            for number, _ in error.errors:
                yield number, "expected [section], key = value, or a comment that begins with # or ;"
                lines[number - 1] = f"{_MARK}{number} ="
        case _:
            raise error


def _real_section(name: str) -> str:
    """Return the section that a name or its stand-in is for; empty for keys before any section."""
    return name.rpartition(_MARK)[2]
