#!/bin/sh
# Starts the listener that makes a flapping program FATAL; its stdin and stdout speak supervisord's event protocol.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
python="$root/.venv/bin/python"

if [ ! -x "$python" ]; then
    echo "flap-listener: $python is missing: run 'make install' (or 'poetry install --only main') in $root" >&2
    exit 78
fi
cd -- "$root"
exec "$python" -m scheduler.observe.flapping --holds deploy/log "$@"
