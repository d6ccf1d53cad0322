"""The text of supervisord's program section for the daemon, made from the stop grace; pure, it reads and writes nothing."""

from __future__ import annotations

STOP_MARGIN_S = 15
"""What the daemon gets beyond its grace: to interrupt the engine, give messages back and flush (seconds)."""

_TEMPLATE = """\
; Made by `sd-scheduler config supervisor`; make it anew when `stop_grace_s` changes (docs/operations.md).
; %(here)s is this folder.
[program:api-scheduler]
command = "%(here)s/../run/api-scheduler.sh"
autostart = true

; A death in the first second comes before any work (bad configuration, broken installation): FATAL at once. Later,
; 0 (told to stop) and 2 (bad configuration, which a restart does not mend) stay EXITED; all else is started again, and
; what keeps dying is made FATAL by flap-listener.
startsecs = 1
startretries = 0
autorestart = unexpected
exitcodes = 0,2

; TERM: the running task gets `stop_grace_s` ({stop_grace_s} s), then is given back. The {margin_s} s more are for the giving back; a KILL
; before that would leave messages invisible until their lease runs out.
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


def program(stop_grace_s: int) -> str:
    """`deploy/supervisord/api-scheduler.conf` for this grace (seconds): stopwaitsecs is the grace and the margin."""
    return _TEMPLATE.format(
        stop_grace_s=stop_grace_s, margin_s=STOP_MARGIN_S, stopwaitsecs=stop_grace_s + STOP_MARGIN_S
    )
