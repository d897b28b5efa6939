#!/usr/bin/env bash
# Installs the Debian packages of packaging/linux/packages.txt that are missing, then configures and builds.
#   setup.sh [packages|build]     both without an argument
# RESECT_BUILD_DIR names the build folder (default: build), RESECT_CMAKE_FLAGS adds configure flags.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
build=${RESECT_BUILD_DIR:-build}

install_packages() {
    local missing=()
    while read -r package _; do
        [[ -z $package || $package == \#* ]] && continue
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done <packaging/linux/packages.txt
    if [ ${#missing[@]} -eq 0 ]; then return; fi
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "These Debian packages are missing, and installing them needs root or sudo: ${missing[*]}" >&2
            exit 4
        }
        root=(sudo)
    fi
    echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

build_all() {
    # shellcheck disable=SC2086
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release ${RESECT_CMAKE_FLAGS:-} >"$build.configure.log" 2>&1 || {
        cat "$build.configure.log" >&2
        exit 1
    }
    rm -f "$build.configure.log"
    cmake --build "$build" ${RESECT_BUILD_TARGETS:+--target $RESECT_BUILD_TARGETS}
}

case $what in
packages) install_packages ;;
build) build_all ;;
all)
    install_packages
    build_all
    ;;
*) echo "usage: setup.sh [packages|build]" >&2; exit 2 ;;
esac
