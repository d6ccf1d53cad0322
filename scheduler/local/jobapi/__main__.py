"""`python -m scheduler.local.jobapi`: starts the stand-in, says where it listens, ends when told to."""

from __future__ import annotations

import argparse
import sys
import threading

from scheduler.local.jobapi.application import Application
from scheduler.local.jobapi.bucket import Bucket, connect
from scheduler.local.jobapi.shop import Shop
from scheduler.local.serving.lifetime import serve
from scheduler.local.serving.server import StandinServer


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scheduler.local.jobapi", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--bucket", required=True, help="where results are stored")
    parser.add_argument("--s3-endpoint", help="where S3 is; by default as boto3 finds it")
    parser.add_argument("--seconds-per-step", type=float, default=0.05, help="one sampler step (default: %(default)s)")
    parser.add_argument("--exit-with-parent", action="store_true", help="exit at once when stdin is closed")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the jobs that are left end with the process."""
    options = arguments().parse_args(argv)
    bucket = Bucket(connect(options.s3_endpoint), options.bucket)
    shop = Shop(bucket, seconds_per_step=options.seconds_per_step)
    threading.Thread(target=shop.run, name="work", daemon=True).start()
    serve(StandinServer((options.host, options.port), Application(shop)), exit_with_parent=options.exit_with_parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
