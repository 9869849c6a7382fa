#!/bin/bash
# The project's suites over soft-RoCE; run.sh --suite runs it in the guest.
#
#   suite.sh RUST_PROGRAMS BUILD_DIR      RUST_PROGRAMS: file of lines `name path`, as cargo built them
#
# What cannot run, or runs no test at all, is a failure: the guest has all that the suites need.
set -u

readonly programs=$1 build=$2
# The Rust tests that take their fabric from FLAGCX_P2P_FABRIC, by the beginning of their names.
readonly rust_suites='verbs_rxe rails_rxe engine_ forked_children chaos_sources files'
# Where files may be without a name (O_TMPFILE) until they are whole: the root file system here, an overlay, has none
# such, and a killed process would leave a part of a file behind.
export TMPDIR=/run
# Sizes for an emulated machine: iovs of the longest list, and the share of the chaos suite's faults.
export FLAGCX_P2P_TEST_PIECES=65536 FLAGCX_P2P_TEST_SHARE=20
# shellcheck source=tests/rdma-vm/suite_steps.sh
. "$(dirname "${BASH_SOURCE[0]}")/suite_steps.sh"

# Selected tests of a program, by parts of their names; all if this prints nothing.
tests_of() {
  # Every run of the tool takes seconds here: those that move files, also while one side is killed.
  [ "$1" != files ] || echo go_there_and_back in_the_middle
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

# Chaos over connections with two rails, by a second device, which goes at the end. Registering with two takes twice the time.
chaos_rails() {
  local status=0
  ip link add dummy1 mtu 4200 type dummy && ip address add 10.77.1.1/24 dev dummy1 && ip link set dummy1 up &&
    rdma link add rxe1 type rxe netdev dummy1 || return
  FLAGCX_P2P_TEST_RAILS=2 FLAGCX_P2P_TEST_SHARE=200 rust_suite "$1" every_kth regions_come || status=$?
  rdma link del rxe1 && ip link del dummy1 || return
  return $status
}

export -f slow_link chaos_rails demo

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
  step chaos_rails 180 bash -c 'chaos_rails "$1"' bash "$(path_of chaos_sources)"
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
  all_passed
}

main
