"""moto's server on a free port, answering as moto does, without two costs that would be measured as AWS's."""

from __future__ import annotations

import logging
import threading

from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.sqs.models import SQSBackend

from benchmarks.loopback import announce
from scheduler.local.emulator import make_updates_atomic


def _never_expired(_backend: SQSBackend, _queue_name: str, _message: object) -> bool:
    """Stand for a check that computes every attribute of the queue anew for each message that is received."""
    return True


def main() -> None:
    """Serve until the parent process is gone."""
    make_updates_atomic()
    SQSBackend.is_message_valid_based_on_retention_period = _never_expired  # type: ignore[method-assign, assignment]  # that is the point
    logging.getLogger("werkzeug").disabled = True  # a line for each request, read by nobody
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    announce(server.get_host_and_port()[1])
    threading.Event().wait()


if __name__ == "__main__":
    main()
