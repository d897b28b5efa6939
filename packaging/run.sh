#!/usr/bin/env bash
# Installs what is missing on Debian 12, builds, and starts the window on the bundled demo checkpoint.
# Without a display it takes the same tour headless and says where its pictures and report are.
#   run.sh [FOLDER]     a checkpoint or workspace of your own instead of the demo
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=${RESECT_BUILD_DIR:-$root/build}
(cd "$root" && RESECT_BUILD_TARGETS="resect resect-cli plugins" packaging/setup.sh)
target=(--demo)
[ $# -gt 0 ] && target=("$@")
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exec "$build/bin/resect" "${target[@]}"
fi
tour=$build/tour
rm -rf "$tour"
QT_QPA_PLATFORM=offscreen "$build/bin/resect" "${target[@]}" --screenshot-tour "$tour"
echo "No display here, so the tour ran headless. Pictures and report: $tour"
