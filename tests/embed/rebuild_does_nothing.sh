#!/bin/bash
# rebuild_does_nothing.sh BUILD_DIR: building again what was just built must write no object, library or header.
set -euo pipefail
build=$1
cmake --build "$build" # whatever was edited since the last build
marker=$(mktemp)
trap 'rm -f "$marker"' EXIT
cmake --build "$build"
written=$(find "$build" \( -name '*.o' -o -name '*.a' -o -name '*.so*' -o -name '*.h' \) -newer "$marker")
if [ -n "$written" ]; then
  echo "a second build wrote:"
  echo "$written"
  exit 1
fi
