"""`sd-scheduler local` at a terminal that is closed under it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
# The terminal becomes the controlling one, as a login makes it: only then is its end a SIGHUP.
AT_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from scheduler.main import main; main()"
LOCAL = [sys.executable, "-c", AT_TERMINAL, "local"]


def read_until(descriptor: int, words: bytes) -> None:
    seen = b""
    while words not in seen:
        chunk = os.read(descriptor, 65536)
        assert chunk, seen
        seen += chunk


def test_a_closed_terminal_ends_it_in_order_and_leaves_nothing_running(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        LOCAL,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            read_until(ours, b"engine_ready")
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) >= 2
            os.close(ours)  # the kernel now hangs up
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
    assert not (tmp_path / ".local/environment").exists()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert (len(gone), alive) == (len(children), [])
