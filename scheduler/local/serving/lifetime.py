"""A stand-in's life as a process: it says where it listens, and ends when told to."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time

from scheduler.local.serving.announcing import announce
from scheduler.local.serving.server import StandinServer


def serve(server: StandinServer, *, exit_with_parent: bool, drains: bool = True, opens_after_s: float = 0.0) -> None:
    """Serve until SIGTERM or SIGINT, then drain, if that is in the real server's nature; a second signal ends the
    process at once.

    With `exit_with_parent` the process also ends when its stdin is closed. With `opens_after_s` the port, announced at
    once, refuses for so long; the server must not listen yet.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: signals.put(received))
    if exit_with_parent:
        threading.Thread(target=_exit_at_end_of_stdin, name="parent", daemon=True).start()
    host, port = server.socket.getsockname()[:2]
    announce(f"http://{host}:{port}")
    if opens_after_s:
        time.sleep(opens_after_s)
        server.server_activate()
    threading.Thread(target=server.serve_forever, args=(0.05,), name="accept", daemon=True).start()

    signals.get()
    if not drains:
        return
    threading.Thread(target=_exit_at_second_signal, args=(signals,), name="signals", daemon=True).start()
    server.drain()


def _exit_at_end_of_stdin() -> None:
    while os.read(0, 4096):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os._exit(0)


def _exit_at_second_signal(signals: queue.SimpleQueue[int]) -> None:
    os._exit(128 + signals.get())
