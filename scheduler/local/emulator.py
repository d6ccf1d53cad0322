"""moto's server as a child process: SQS, DynamoDB and S3 on loopback, gone when its parent is.

``python -m scheduler.local.emulator [--port N]`` prints one line, ``listening on http://127.0.0.1:PORT``, and serves
until standard input ends.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import sys
import threading
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from scheduler.local.serving.announcing import announce


def make_updates_atomic() -> None:
    """Make moto's conditional updates what DynamoDB's are: as it comes, two threads may both pass one condition."""
    update, lock = DynamoDBBackend.update_item, threading.Lock()

    def update_alone(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return copy.deepcopy(update(*args, **kwargs))

    DynamoDBBackend.update_item = update_alone  # type: ignore[method-assign]  # the point of this function


def serve(port: int) -> None:
    """Serve on loopback until standard input ends; `port` 0 takes any free one."""
    make_updates_atomic()
    # One line a request would hide what the scheduler has to say.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", port, DomainDispatcherApplication(create_backend_app), threaded=True)
    announce(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    server.serve_forever()


def _exit_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="moto's server on loopback, until standard input ends")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    serve(parser.parse_args().port)
