#!/usr/bin/env bash
# Installs what is missing on a bare Debian 12, builds, and runs all tests but those against other programs (label interop), which download
# them. The last lines are the ctest summary.
set -euo pipefail
cd "$(dirname "$0")/.."
packaging/setup.sh
ctest --test-dir "${RESECT_BUILD_DIR:-build}" --output-on-failure --parallel "$(nproc)" --label-exclude interop "$@"
