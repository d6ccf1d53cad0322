"""The entry: ``python scheduler/main.py`` is ``sd-scheduler run``; ``main`` is the ``sd-scheduler`` command."""

import os
import sys

if __name__ == "__main__":
    # Run by its path, Python puts this folder first on sys.path; the imports below need the one above it.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before any import

from scheduler.cli.root import cli


def main() -> None:
    """Run the command line; exits with its code."""
    cli(prog_name="sd-scheduler")


if __name__ == "__main__":
    cli(["run", *sys.argv[1:]], prog_name="sd-scheduler")
