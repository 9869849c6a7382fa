#!/bin/bash
# The project's suites over soft-RoCE; run.sh --suite runs it in the guest.
#
#   suite.sh RUST_PROGRAMS BUILD_DIR      RUST_PROGRAMS: file of lines `name path`, as cargo built them
#
# What cannot run, or runs no test at all, is a failure: the guest has all that the suites need.
set -u

readonly programs=$1 build=$2
# The Rust tests that take their fabric from FLAGCX_P2P_FABRIC, by the beginning of their names.
readonly rust_suites='verbs_rxe engine_ forked_children chaos_sources files'
# Where files may be without a name (O_TMPFILE) until they are whole: the root file system here, an overlay, has none
# such, and a killed process would leave a part of a file behind.
export TMPDIR=/run
# Sizes for an emulated machine: iovs of the longest list, and the share of the chaos suite's faults.
export FLAGCX_P2P_TEST_PIECES=65536 FLAGCX_P2P_TEST_SHARE=20
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

# Selected tests of a program, by parts of their names; all if this prints nothing.
tests_of() {
  # Every run of the tool takes seconds here: those that move files, also while one side is killed.
  [ "$1" != files ] || echo go_there_and_back in_the_middle
}

path_of() {
  sed -n "s/^$1 //p" "$programs"
}

# A pair of verbs' own example programs: shows that the guest's devices work, independently of this engine.
pingpong() {
  local options=(-d rxe0 -g 1 -s 65536 -n 200) server status=0
  ibv_rc_pingpong "${options[@]}" >/dev/null &
  server=$!
  sleep 1
  ibv_rc_pingpong "${options[@]}" 127.0.0.1 || status=$?
  wait "$server" || status=$?
  return "$status"
}

# rust_suite PROGRAM [FILTER...]. Tests that need something else print "not run" and the reason, one line each; at least one
# test must run.
rust_suite() {
  local output passed absent status=0
  output=$("$@" --test-threads=1 --show-output 2>&1) || status=$?
  # The last one: some tests run this program again.
  passed=$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/\1/p' <<<"$output" | tail -n 1)
  absent=$(grep -c '^not run' <<<"$output")
  if [ "$status" = 0 ] && [ "${passed:-0}" -le "$absent" ]; then
    echo "no test ran"
    status=1
  fi
  if [ "$status" = 0 ]; then
    grep -E '^test result|^not run' <<<"$output"
    grep -oE '\| .* \|$' <<<"$output" # the chaos suite's table
    echo "ran: $((passed - absent)), not run: $absent"
  else
    echo "$output"
  fi
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

# By default the demo moves files of the Rust toolchain; to walk through that over 9p takes minutes.
demo() {
  mkdir -p /run/files
  head -c 40M /dev/urandom >/run/files/one
  head -c 24M /dev/urandom >/run/files/two
  "$1" demo --size 64M --from /run/files
}

# Sockets between two network namespaces over a link with loss, delay and a rate, which not every host's kernel has.
slow_link() {
  modprobe -a veth sch_netem || return
  FLAGCX_P2P_FABRIC=software rust_suite "$1" bytes_arrive_over_a_slow_link_that_loses_packets
}

export -f pingpong rust_suite gtest_suite slow_link demo

main() {
  local prefix name path program
  step ibv_rc_pingpong 60 bash -c pingpong
  for prefix in $rust_suites; do
    grep -q "^$prefix" "$programs" || { echo "=== $prefix: cargo has built no such test" && failed+=("$prefix"); }
    while read -r name path; do
      # shellcheck disable=SC2016,SC2046 # for the inner shell; several words
      step "$name" 300 bash -c 'rust_suite "$@"' bash "$path" $(tests_of "$name")
    done < <(grep "^$prefix" "$programs")
  done
  # shellcheck disable=SC2016
  step slow_link 90 bash -c 'slow_link "$1"' bash "$(path_of two_hosts)"
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
