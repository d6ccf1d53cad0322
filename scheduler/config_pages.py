"""The settings as people read them: the template, the table of the documents, what is in effect."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from scheduler.config import ALIASES, OPEN, PREFIX, WEBUI, Settings, info_of
from scheduler.config_sections import SECTIONS, Aws, Section, bounds, samples

_NOBODYS = ("sqs_queue_url", "s3_bucket")
"""Keys of [aws] whose example names an account, or a bucket, that is nobody's."""
_OF_WEBUI = (WEBUI, ("sd_api", "restart_command"))
"""What means nothing where the WebUI of [sd_api] is not among the engines; other WebUIs have the same login."""
_HEADER = f"""\
The configuration of sd-scheduler: cp conf.template.ini conf.ini, then fill in [aws].
A line that begins with # or ; is a comment; to change a default, remove the # before its key.
${{NAME}} in a value is replaced from the environment; write $${{ for the characters ${{.
{PREFIX}<SECTION>_<KEY> in the environment overrides a key: {PREFIX}AWS_S3_BUCKET, {PREFIX}SCHEDULER_MAX_RUNS.
"sd-scheduler config check" tells what is wrong, "sd-scheduler config show" what is in effect."""


class Shown(NamedTuple):
    """One setting, fit for anybody's eyes; `source` is ``file:line``, a variable's name or ``default``.

    `note` says why it is not in effect, where it is not.
    """

    section: str
    key: str
    value: str
    source: str
    note: str = ""


def effective(settings: Settings) -> list[Shown]:
    """Return every setting, in the order of the template, secrets as ``***``."""
    sections: dict[str, Section] = {name: getattr(settings, name) for name in SECTIONS}
    notes = {} if settings.has_webui else dict.fromkeys(_OF_WEBUI, "not in use: [engines] lists the engines")
    return [
        Shown(name, key, value, settings.sources.get((name, key), "default"), notes.get((name, key), ""))
        for name, section in sections.items()
        for key, value in section.shown().items()
    ]


def template() -> str:
    """Return conf.template.ini: a valid file with examples for the required keys, the others commented out."""
    lines = [f"# {line}" for line in _HEADER.splitlines()]
    for section, model in SECTIONS.items():
        lines += ["", "", *_comment(model.about), f"[{section}]"]
        for key, value in samples(model).items():
            is_required = info_of(section, key).is_required()
            meaning = _meaning(section, key) + (" The value is an example: write your own." if is_required else "")
            lines += ["", *_comment(meaning), f"{'' if is_required else '#'}{key} = {value}".rstrip()]
    return "\n".join(lines) + "\n"


def left_as_examples(settings: Settings) -> list[str]:
    """Return the keys of [aws] that still have the template's value although it can be nobody's own."""
    examples, given = samples(Aws), settings.aws.shown()
    return [key for key in _NOBODYS if given[key] == examples[key]]


def markdown_table() -> str:
    """Return every setting as a row of a Markdown table: section, key, default, meaning."""
    lines = ["| section | key | default | meaning |", "|---|---|---|---|"]
    for section, model in SECTIONS.items():
        for key, value in samples(model).items():
            default = "(required)" if info_of(section, key).is_required() else f"`{value}`" if value else "(empty)"
            name, default = ("NAME", "(none)") if section in OPEN else (key, default)
            lines.append(f"| {section} | {name} | {default} | {_meaning(section, key)} |")
    return "\n".join(lines) + "\n"


def _meaning(section: str, key: str) -> str:
    info = info_of(section, key)
    parts = [info.description or ""]
    if limits := bounds(info):
        parts.append(f"{limits.capitalize()}.")
    if names := [name for (home, name), target in ALIASES.items() if (home, target) == (section, key)]:
        parts.append(f"Also read as {' or '.join(names)}.")
    return " ".join(parts)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, width=100, break_on_hyphens=False, break_long_words=False)]
