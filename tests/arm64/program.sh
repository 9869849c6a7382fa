#!/bin/bash
# program.sh LIST NAME: runs a Rust test program of the list that cargo/build.sh has written under the emulator, but for the tests that
# not_run.txt has of it. They are printed with their reasons, or run each in a process of its own. One that the program does not have
# is an error.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
readonly here list=$1 name=$2

run() {
  "$here/../cargo/run.sh" "$list" "$name" "$@"
}

skipped=() alone=() known=
while read -r program test reason; do
  [ "$program" = "cargo.$name" ] || continue
  test=${test%:}
  [ -n "$known" ] || known=$(run --list)
  grep -qxF "$test: test" <<<"$known" || {
    echo "tests/arm64/not_run.txt: cargo.$name has no test $test"
    exit 1
  }
  skipped+=(--skip "$test")
  if [[ $reason == 'alone: '* ]]; then
    alone+=("$test")
  else
    echo "not run: arm64 $test: $reason"
  fi
done <"$here/not_run.txt"

run --exact ${skipped[@]+"${skipped[@]}"}
for test in ${alone[@]+"${alone[@]}"}; do
  run --exact "$test"
done
