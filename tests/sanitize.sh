#!/bin/bash
# sanitize.sh PRESET [CMAKE_OPTION...]: configures, builds and runs the C++ suites of a sanitizer's preset.
set -euo pipefail
preset=$1
shift
cmake --preset "$preset" "$@" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" --no-tests=error
