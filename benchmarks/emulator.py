"""An AWS emulator on a free port: moto, without two costs that would be measured as AWS's, or ministack, which is
faster.

``python -m benchmarks.emulator moto|ministack``. With moto a task's two conditional writes cost its single thread more
than the daemon and the engine together, so that `throughput` measures moto; ministack leaves more to the consumer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading

from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.sqs.models import SQSBackend

from benchmarks.loopback import announce
from scheduler.local.emulator import make_updates_atomic


def _never_expired(_backend: SQSBackend, _queue_name: str, _message: object) -> bool:
    """Stand for a check that computes every attribute of the queue anew for each message that is received."""
    return True


def serve_ministack() -> None:
    """Serve on a socket that is bound before ministack is told its port, so that nobody can take it meanwhile."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listening.getsockname()[1]
    # Without the last but one it also opens an MQTT port on every interface.
    os.environ |= {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "LOG_LEVEL": "ERROR"}
    from hypercorn.asyncio import serve  # noqa: PLC0415 - ministack reads its settings when it is imported
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    announce(port)
    asyncio.run(serve(app, config))


def serve_moto() -> None:
    """Serve until the parent process is gone."""
    make_updates_atomic()
    SQSBackend.is_message_valid_based_on_retention_period = _never_expired  # type: ignore[method-assign, assignment]  # that is the point
    logging.getLogger("werkzeug").disabled = True  # a line for each request, read by nobody
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    announce(server.get_host_and_port()[1])
    threading.Event().wait()


if __name__ == "__main__":
    {"moto": serve_moto, "ministack": serve_ministack}[sys.argv[1]]()
