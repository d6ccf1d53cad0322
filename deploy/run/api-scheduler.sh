#!/bin/sh
# Starts the scheduler in the project's own environment, from the root of the clone, so that ./conf.ini is found
# unless SCHEDULER_CONFIG names another. `exec` matters: supervisord's signals must reach the daemon, not a shell.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
held="$root/deploy/log/api-scheduler.flapping"
python="$root/.venv/bin/python"

if [ -e "$held" ]; then
    echo "api-scheduler: not started, it kept exiting: $(cat -- "$held")" >&2
    exit 75
fi
if [ ! -x "$python" ]; then
    echo "api-scheduler: $python is missing: run 'make install' (or 'poetry install --only main') in $root" >&2
    exit 78
fi
cd -- "$root"
exec "$python" scheduler/main.py
