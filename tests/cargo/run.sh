#!/bin/bash
# run.sh LIST NAME [ARG...]: runs a test program of the list that build.sh has written, in its crate's folder, as cargo
# does. The output of passing tests is shown too: tests that did not run, with their reasons. ARM64_EMULATOR, if it is set,
# runs it: it is for another machine.
set -euo pipefail
list=$1 name=$2
shift 2
while IFS=$'\t' read -r listed folder program; do
  if [ "$listed" = "$name" ]; then
    cd "$folder"
    CARGO_MANIFEST_DIR=$folder exec ${ARM64_EMULATOR:+"$ARM64_EMULATOR"} "$program" --show-output "$@"
  fi
done <"$list"
echo "no test program $name in $list"
exit 1
