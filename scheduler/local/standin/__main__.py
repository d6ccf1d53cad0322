"""`python -m scheduler.local.standin`: starts the stand-in, says where it listens, ends when told to."""

from __future__ import annotations

import argparse
import sys

from scheduler.local.checkpoints import CHECKPOINTS
from scheduler.local.serving.lifetime import serve
from scheduler.local.serving.pace import Pace
from scheduler.local.serving.server import StandinServer
from scheduler.local.standin.application import Application, Front
from scheduler.local.standin.engine import Engine


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.local.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--seconds-per-step", type=float, default=0.05, help="one sampler step (default: %(default)s)")
    parser.add_argument("--switch-seconds", type=float, default=2.0, help="loading weights (default: %(default)s)")
    parser.add_argument(
        "--startup-seconds", type=float, default=0.0, help="open port, but 404 everywhere (default: %(default)s)"
    )
    parser.add_argument(
        "--checkpoints", default=",".join(CHECKPOINTS), help="file names, with commas; the first is loaded"
    )
    parser.add_argument("--auth", help="user:password[,user:password] for HTTP Basic on the API")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--api-only", dest="ui", action="store_false", help="only /sdapi (the default)")
    mode.add_argument("--ui", dest="ui", action="store_true", help="also /internal and the page")
    parser.set_defaults(ui=False)
    parser.add_argument("--exit-with-parent", action="store_true", help="exit at once when stdin is closed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once."""
    parser = arguments()
    options = parser.parse_args(argv)
    checkpoints = [name.strip() for name in options.checkpoints.split(",") if name.strip()]
    if not checkpoints:
        parser.error("--checkpoints: at least one file name is wanted")
    pace = Pace(seconds_per_step=options.seconds_per_step, switch_seconds=options.switch_seconds)
    engine = Engine(checkpoints, pace)
    front = Front(ui=options.ui, auth=options.auth, startup_seconds=options.startup_seconds)
    server = StandinServer((options.host, options.port), Application(engine, front))
    serve(server, exit_with_parent=options.exit_with_parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
