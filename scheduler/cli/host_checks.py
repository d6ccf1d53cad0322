"""Doctor's checks of the host: engines, disk, supervisord's stop time; they ask nothing of AWS."""

from __future__ import annotations

import configparser
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scheduler.aws.checking import Finding, fail, ok, skipped, warn
from scheduler.config_engines import ConfiguredEngine
from scheduler.domain.errors import SchedulerError
from scheduler.domain.ports import Engine
from scheduler.supervisor_program import STOP_MARGIN_S

GB = 1_000_000_000
WANTED_FREE_BYTES = GB
LEAST_FREE_BYTES = GB // 5
"""Below it the daemon calls itself unhealthy."""
PROGRAM_FILE = Path("deploy/supervisord/api-scheduler.conf")
_PROGRAM = "program:api-scheduler"
_SUPERVISORD_DEFAULT_S = 10


HOW_TO_START = {
    "sdwebui": "start the WebUI there, with --api; or correct its address, or api_auth",
    "comfyui": "start ComfyUI there, or correct its address",
    "job_api": "start the job API there, or correct its address",
}
"""What to do about an engine that does not answer, by kind."""


def engines(configured: Sequence[ConfiguredEngine], built: Sequence[Engine]) -> Iterator[Finding]:
    """Probe every engine; `configured` are the same ones, in the same order."""
    for wanted, engine in zip(configured, built, strict=True):
        check = f"engine {engine.name}"
        try:
            engine.probe()
        except SchedulerError as error:
            yield fail(check, str(error), HOW_TO_START[wanted.kind])
        else:
            default = engine.title(None)
            yield ok(check, f"answers; default checkpoint: {default}" if default else "answers")


def restart_commands(configured: Iterable[ConfiguredEngine]) -> Iterator[Finding]:
    """See whether the programs that restart hung engines are there; none is run."""
    for engine in configured:
        if not engine.restart_command:
            continue
        check, program = f"engine {engine.name} restart", engine.restart_command[0]
        if found := shutil.which(program):
            yield ok(check, f"{found} is there (not run)")
        else:
            advice = "correct the command, install the program, or write its whole path: the daemon has this PATH, too"
            yield fail(check, f"there is no program {program}: a hung engine would stay hung", advice)


def disk(folder: Path) -> Finding:
    """See whether there is room to write where the daemon runs."""
    free_bytes = shutil.disk_usage(folder).free
    found = f"{free_bytes / GB:.1f} GB free at {folder.absolute()}"
    if free_bytes < LEAST_FREE_BYTES:
        return fail("disk", found, f"make room: below {LEAST_FREE_BYTES / GB:.1f} GB the daemon is unhealthy")
    if free_bytes < WANTED_FREE_BYTES:
        return warn("disk", found, f"make room: keep at least {WANTED_FREE_BYTES / GB:.0f} GB free")
    return ok("disk", found)


def stop_time(stop_grace_s: int, roots: Iterable[Path]) -> Finding:
    """See whether supervisord waits long enough before it kills; the file is looked for below `roots`, in order."""
    check, needed_s = "supervisord stop time", stop_grace_s + STOP_MARGIN_S
    file = next((path for root in roots if (path := root / PROGRAM_FILE).is_file()), None)
    if file is None:
        return skipped(check, f"there is no {PROGRAM_FILE} here")
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
    make = f"make it anew: sd-scheduler config supervisor -o {file}, then supervisorctl update"
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        given_s = parser.getint(_PROGRAM, "stopwaitsecs", fallback=_SUPERVISORD_DEFAULT_S)
    except (OSError, ValueError, configparser.Error) as error:
        return fail(check, f"{file}: {' '.join(str(error).split())}", make)
    found = f"{file}: stopwaitsecs is {given_s}, stop_grace_s {stop_grace_s}"
    if given_s < needed_s:
        return fail(check, f"{found}: it takes {needed_s} to stop without leaving messages invisible", make)
    return ok(check, found)
