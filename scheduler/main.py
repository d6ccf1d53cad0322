"""The entry: ``python scheduler/main.py`` is ``sd-scheduler run``; ``main`` is the ``sd-scheduler`` command.

Only the standard library may be imported at its top: the rest takes seconds, in which the daemon can be told to stop.
"""

import os
import signal
import sys
from types import FrameType

if __name__ == "__main__":
    # Run by its path, Python puts this folder first on sys.path; the imports below need the one above it.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before any import


def main() -> None:
    """Run the command line; exits with its code."""
    _run(sys.argv[1:])


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["run"]:
        signal.signal(signal.SIGTERM, _stopped_early)
    from scheduler.cli.root import cli  # noqa: PLC0415 - see above

    cli(arguments, prog_name="sd-scheduler")


def _stopped_early(_number: int, _frame: FrameType | None) -> None:
    """End the daemon that has not begun: nothing is held yet. The daemon puts its own handler in this one's place.

    An exception would not do: it could strike within an import, or where Python ignores what is raised.
    """
    os.write(2, b"told to stop before the start was over: nothing was held\n")
    os._exit(0)


if __name__ == "__main__":
    _run(["run", *sys.argv[1:]])
