#!/bin/sh
# with_display.sh COMMAND...: run it under Xvfb on Linux, where windows need an X server; as it is elsewhere.
set -eu

if [ "$(uname -s)" = Linux ]; then
    # software OpenGL, the same on every machine
    LIBGL_ALWAYS_SOFTWARE=1 exec xvfb-run -a -s '-screen 0 1600x1000x24' "$@"
fi
exec "$@"
