#!/usr/bin/env bash
# Opens the GGUF files that Resect writes in llama.cpp (prebuilt, from npm) and compares what both compute.
#   run.sh CLI TEST_DATA BUILD_FOLDER [words of case names]
# Exits with 77, which ctest reports as skipped, without node, npm or the network.
set -uo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
cli=$(realpath "$1") data=$(realpath -m "$2") build=$(realpath -m "$3")
shift 3
skip() {
    echo "skipped: $1"
    exit 77
}
command -v node >/dev/null || skip "needs node"
command -v npm >/dev/null || skip "needs npm"
[ "$(uname -sm)" = "Linux x86_64" ] || skip "llama.cpp comes prebuilt for Linux x86_64 here"
[ "$(node -p 'Number(process.versions.node.split(".")[0]) >= 20')" = true ] || skip "needs node 20 or newer, found $(node --version)"
mkdir -p "$build"
cp "$source"/tests/interop/{package.json,*.mjs} "$build/"
if ! cmp -s "$build/package.json" "$build/installed.json"; then
    # Without optional packages and install scripts: no other platforms, nothing compiled.
    (cd "$build" && npm install --omit=optional --ignore-scripts --no-audit --no-fund --silent) || skip "npm could not install node-llama-cpp: no network?"
    cp "$build/package.json" "$build/installed.json"
fi
cd "$build" && exec node compare.mjs "$cli" "$source" "$data" "$build/scratch" "$@"
