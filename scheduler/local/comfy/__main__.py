"""`python -m scheduler.local.comfy`: starts the stand-in, says where it listens,
ends when told to, without draining.
"""

from __future__ import annotations

import argparse
import sys

from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.comfy.application import Application
from scheduler.local.comfy.executor import Executor
from scheduler.local.comfy.room import Room
from scheduler.local.comfy.sockets import Hub
from scheduler.local.serving.lifetime import serve
from scheduler.local.serving.pace import Pace
from scheduler.local.serving.server import StandinServer


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.local.comfy", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8188, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--seconds-per-step", type=float, default=0.05, help="one sampler step (default: %(default)s)")
    parser.add_argument("--switch-seconds", type=float, default=2.0, help="loading weights (default: %(default)s)")
    parser.add_argument("--startup-seconds", type=float, default=0.0, help="the port refuses (default: %(default)s)")
    parser.add_argument("--checkpoints", default=",".join(CHECKPOINTS), help="file names, with commas")
    parser.add_argument("--previews", action="store_true", help="send pictures in the making")
    parser.add_argument(
        "--untargeted-interrupt",
        dest="targeted",
        action="store_false",
        help="interrupt as builds before September 2025",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="exit at once when stdin is closed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = arguments()
    options = parser.parse_args(argv)
    checkpoints = [name.strip() for name in options.checkpoints.split(",") if name.strip()]
    hub = Hub()
    pace = Pace(seconds_per_step=options.seconds_per_step, switch_seconds=options.switch_seconds)
    executor = Executor(Room(checkpoints), hub, pace, previews=options.previews, targeted=options.targeted)
    executor.start()
    opens_after_s: float = options.startup_seconds
    server = StandinServer((options.host, options.port), Application(executor, hub), listens=not opens_after_s)
    serve(server, exit_with_parent=options.exit_with_parent, drains=False, opens_after_s=opens_after_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
