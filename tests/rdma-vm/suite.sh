#!/bin/bash
# The project's suites over soft-RoCE; run.sh --suite runs it in the guest.
#
#   suite.sh RUST_PROGRAMS BUILD_DIR      RUST_PROGRAMS: file of lines `name path`, as cargo built them
#
# What cannot run, or runs no test at all, is a failure: the guest has all that the suites need.
set -u

readonly programs=$1 build=$2
# The Rust tests that take their fabric from FLAGCX_P2P_FABRIC, by the beginning of their names. Left out of them: what
# is sized for a real machine (a million requests take minutes under emulation), and what needs the faults that only
# the software fabric injects.
readonly rust_suites='verbs_rxe engine_'
export LEFT_OUT='--skip millions_of_pieces --skip a_transfer_that_takes_too_long --skip operators_are_told'
failed=()

report() {
  local name=$1 status=$2 seconds=$3
  echo "=== $name: $([ "$status" = 0 ] && echo passed || echo "FAILED ($status)"), $seconds s"
  [ "$status" = 0 ] || failed+=("$name")
}

# step NAME SECONDS COMMAND...: runs it within a limit and reports it.
step() {
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  echo "=== $name"
  timeout -k 5 "$limit" "$@" || status=$?
  report "$name" "$status" $((SECONDS - start))
}

path_of() {
  sed -n "s/^$1 //p" "$programs"
}

# A pair of verbs' own example programs: shows that the guest's devices work, whatever ours do.
pingpong() {
  local options=(-d rxe0 -g 1 -s 65536 -n 200) server status=0
  ibv_rc_pingpong "${options[@]}" >/dev/null &
  server=$!
  sleep 1
  ibv_rc_pingpong "${options[@]}" 127.0.0.1 || status=$?
  wait "$server" || status=$?
  return "$status"
}

rust_suite() {
  local output status=0
  # shellcheck disable=SC2086 # several words
  output=$("$1" --test-threads=1 $LEFT_OUT 2>&1) || status=$?
  if [ "$status" = 0 ] && ! grep -q '^test result: ok. [1-9][0-9]* passed' <<<"$output"; then
    echo "no test ran"
    status=1
  fi
  if [ "$status" = 0 ]; then grep '^test result' <<<"$output"; else echo "$output"; fi
  return "$status"
}

gtest_suite() {
  local output status=0
  output=$("$1" 2>&1) || status=$?
  if [ "$status" = 0 ] && ! grep -q 'PASSED  \] [1-9]' <<<"$output"; then
    echo "no test ran"
    status=1
  fi
  if [ "$status" = 0 ]; then
    grep -E 'PASSED|SKIPPED' <<<"$output"
  else
    grep -A 3 -E ': Failure|^\[  FAILED' <<<"$output"
    tail -n 40 <<<"$output"
  fi
  return "$status"
}

# The demo moves files of the Rust toolchain. To walk through that over 9p takes minutes: it gets a folder of two.
demo() {
  mkdir -p /run/files
  head -c 40M /dev/urandom >/run/files/one
  head -c 24M /dev/urandom >/run/files/two
  printf '#!/bin/sh\necho /run/files\n' >/run/rustc
  chmod +x /run/rustc
  RUSTC=/run/rustc "$1" demo --size 64M
}

export -f pingpong rust_suite gtest_suite demo

main() {
  local prefix name path program
  step ibv_rc_pingpong 60 bash -c pingpong
  for prefix in $rust_suites; do
    grep -q "^$prefix" "$programs" || { echo "=== $prefix: cargo has built no such test" && failed+=("$prefix"); }
    while read -r name path; do
      # shellcheck disable=SC2016 # for the inner shell
      step "$name" 300 bash -c 'rust_suite "$1"' bash "$path"
    done < <(grep "^$prefix" "$programs")
  done
  for program in "$build"/tests/gtest/test_*; do
    [ -x "$program" ] || continue
    # shellcheck disable=SC2016
    step "${program##*/}" 180 bash -c 'gtest_suite "$1"' bash "$program"
  done
  path=$(path_of flagcx-p2p)
  if [ -n "$path" ]; then
    step doctor 60 "$path" doctor
    # shellcheck disable=SC2016
    step demo 300 bash -c 'demo "$1"' bash "$path"
  else
    echo "=== demo: cargo has built no flagcx-p2p" && failed+=(demo)
  fi
  if [ ${#failed[@]} -gt 0 ]; then
    echo "=== failed: ${failed[*]}"
    return 1
  fi
  echo "=== all passed"
}

main
