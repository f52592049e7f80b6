#!/bin/sh
# demo.sh BIN OUT IMAGES: show the main job, in a window if there is a display, else as files.
set -eu

bin=$1 out=$2 images=$3

if [ -z "${HEADLESS:-}" ] && { [ "$(uname -s)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; }; then
    echo 'Opening napari'
    exec "$bin/sonoloop" open ${images:+"$images"}
fi

if [ -z "$images" ]; then
    images=$out/samples
    "$bin/sonoloop" samples --out "$images" > /dev/null
fi
exec "$bin/sonoloop" predict "$images" --out "$out" --overlay
