"""How a child process says where it listens, and how its parent hears it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

LISTENING = "listening on "
START_DEADLINE_S = 60.0
"""What reads hundreds of modules first takes as long on a machine that is busy."""


def announce(url: str) -> None:
    """Print the line that the parent waits for."""
    sys.stdout.write(f"{LISTENING}{url}\n")
    sys.stdout.flush()


def announced(process: subprocess.Popen[bytes], within_s: float = START_DEADLINE_S) -> str | None:
    """Return the address that the child prints; None when it ends without, or does not within the time."""
    if process.stdout is None:
        return None
    end_s = time.monotonic() + within_s
    text = b""
    while True:
        *lines, text = text.split(b"\n")
        for line in lines:
            if line.startswith(LISTENING.encode()):
                return line.decode().removeprefix(LISTENING).strip()
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, end_s - time.monotonic()))
        said = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not said:
            return None
        text += said
