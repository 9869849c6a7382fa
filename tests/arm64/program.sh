#!/bin/bash
# program.sh LIST NAME: runs a Rust test program of the list that cargo/build.sh has written under the emulator, all but the tests that
# not_run.txt has of it. They are printed with their reasons; one that the program does not have is an error.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
readonly here list=$1 name=$2
skipped=()
while read -r program test reason; do
  [ "$program" = "cargo.$name" ] || continue
  echo "not run: arm64 ${test%:}: $reason"
  skipped+=(--skip "${test%:}")
done <"$here/not_run.txt"
if [ ${#skipped[@]} -gt 0 ]; then
  known=$("$here/../cargo/run.sh" "$list" "$name" --list)
  for test in "${skipped[@]}"; do
    [ "$test" = --skip ] || grep -qxF "$test: test" <<<"$known" || {
      echo "tests/arm64/not_run.txt: cargo.$name has no test $test"
      exit 1
    }
  done
fi
exec "$here/../cargo/run.sh" "$list" "$name" --exact ${skipped[@]+"${skipped[@]}"}
