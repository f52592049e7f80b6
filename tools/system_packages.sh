#!/bin/sh
# Install what real windows need under Xvfb, only what is missing; where that takes rights we lack, name it.
set -eu

packages='xvfb xauth libegl1 libgl1 libgl1-mesa-dri libopengl0 libxkbcommon-x11-0 libxcb-cursor0
    libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0
    libxcb-xinerama0 libxcb-xkb1 libdbus-1-3 libfontconfig1'

[ "$(uname -s)" = Linux ] || exit 0

if ! command -v dpkg-query > /dev/null; then
    command -v xvfb-run > /dev/null && exit 0
    echo 'The tests open real windows under Xvfb. Install your distribution'\''s packages of xvfb-run, Mesa' >&2
    echo '(EGL and GL with the software driver) and the xcb libraries; Debian calls them:' >&2
    echo $packages >&2
    exit 1
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo 'The tests open real windows under Xvfb, and these system packages are missing. Run this, then try again:' >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing system packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends $missing
