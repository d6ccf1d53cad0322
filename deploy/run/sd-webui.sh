#!/bin/sh
# Starts AUTOMATIC1111's WebUI with its API on 127.0.0.1:7860. More options go where the WebUI itself looks for them:
# COMMANDLINE_ARGS in its webui-user.sh.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd -P)
held="$root/deploy/log/sd-webui.flapping"
webui=${SD_WEBUI_DIR:-$root/../stable-diffusion-webui}

if [ -e "$held" ]; then
    echo "sd-webui: not started, it kept exiting: $(cat -- "$held")" >&2
    exit 75
fi
if [ ! -f "$webui/webui.sh" ]; then
    echo "sd-webui: no webui.sh in $webui: install the WebUI there, or set SD_WEBUI_DIR to where it is" >&2
    exit 78
fi
cd -- "$webui"

# Under `poetry run` these name the scheduler's environment, and the WebUI would install itself into it.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH

set -- --api
if [ "$(id -u)" -eq 0 ]; then
    set -- -f "$@" # without it webui.sh refuses to run as root
fi
exec bash ./webui.sh "$@"
