"""The text of supervisord's program section for the daemon, made from the stop grace; pure,
it reads and writes nothing.
"""

from __future__ import annotations

STOP_MARGIN_S = 15
"""What the daemon gets beyond its grace: to interrupt the engine, give messages back and flush (seconds)."""
LONGEST_POLL_S = 20
"""SQS waits no longer for a message, whatever `poll_interval` is."""
POLL_MARGIN_S = 2
"""How much later than it should the answer to the last long poll may come and still be put back (seconds)."""

_TEMPLATE = """\
; Made by `sd-scheduler config supervisor`; make it anew when `stop_grace_s` changes (docs/operations.md).
; %(here)s is this folder.
[program:api-scheduler]
command = "%(here)s/../run/api-scheduler.sh"
autostart = true

; A death in the first second comes before any work: it is tried again after 1, 2 and 3 s, and is FATAL then. Later,
; 0 (told to stop) and 2 (bad configuration, which a restart does not mend) stay EXITED; all else is started again, and
; what keeps dying is made FATAL by flap-listener.
startsecs = 1
startretries = 3
autorestart = unexpected
exitcodes = 0,2

; TERM: the running task gets `stop_grace_s` ({stop_grace_s} s), then is given back; the last long poll is waited for even if that
; takes longer ({poll_s} s at most). The {margin_s} s more are for the giving back; a KILL before that would leave messages
; invisible until their lease runs out.
stopsignal = TERM
stopwaitsecs = {stopwaitsecs}

; The daemon alone is signalled: its only child can be the engine's restart command, which must be left to finish.
stopasgroup = false
killasgroup = false

redirect_stderr = true
stdout_logfile = %(here)s/../log/api-scheduler.log
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 5
"""


def stop_wait_s(stop_grace_s: int) -> int:
    """Return how long a stop may take with this grace, whatever `poll_interval` is (all in seconds)."""
    return max(stop_grace_s, LONGEST_POLL_S + POLL_MARGIN_S) + STOP_MARGIN_S


def program(stop_grace_s: int) -> str:
    """`deploy/supervisord/api-scheduler.conf` for this grace (seconds)."""
    return _TEMPLATE.format(
        stop_grace_s=stop_grace_s,
        poll_s=LONGEST_POLL_S + POLL_MARGIN_S,
        margin_s=STOP_MARGIN_S,
        stopwaitsecs=stop_wait_s(stop_grace_s),
    )
