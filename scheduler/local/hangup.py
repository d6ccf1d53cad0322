"""A terminal that is closed ends local mode as SIGTERM does, whatever it is at: nothing is left running."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_STANDARD_FDS = (1, 2)


def end_at_hangup() -> None:
    """Have SIGHUP do what SIGTERM does, and SIGTERM end the process in order also before the daemon handles it.

    Where SIGHUP is ignored (nohup) that is left so. Only for the main thread.
    """
    terminals = [fd for fd in _STANDARD_FDS if os.isatty(fd)]

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        # What is written to a terminal that is gone fails, which must not keep anything from ending.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, no path of ours
            for fd in terminals:
                os.dup2(nowhere.fileno(), fd)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)


def _terminate(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
