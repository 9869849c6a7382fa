#!/bin/bash
# What only a kernel of ARM64 shows: copies between processes, children, and verbs over soft-RoCE; run.sh -a arm64 --suite runs it in the
# guest.
#
#   suite_arm64.sh PROGRAMS      file of lines `name path`, as tests/arm64/run.sh machine writes it
#
# The other suites run under the emulator of programs, in less time: ./x test arm64.
set -u

readonly programs=$1
# shellcheck source=tests/rdma-vm/suite_steps.sh
. "$(dirname "${BASH_SOURCE[0]}")/suite_steps.sh"
# Modules with tests that call the kernel, some in ways that the emulator of programs does not have.
readonly modules=(fabric::software fork:: process:: memory:: events:: pool::quick_clock pool::clock)
# Which tests of forks use beside soft-RoCE.
FLAGCX_P2P_NULLVERBS=$(dirname "$programs")/nullverbs/lib/libibverbs.so.1
export FLAGCX_P2P_NULLVERBS
# As in suite.sh.
export TMPDIR=/run FLAGCX_P2P_TEST_PIECES=16384 FLAGCX_P2P_TEST_SHARE=50

# suite NAME PROGRAM SECONDS [ARGS...]
suite() {
  local path
  path=$(path_of "$2")
  if [ -z "$path" ]; then
    echo "=== $1: there is no program $2" && failed+=("$1")
    return
  fi
  # shellcheck disable=SC2016 # for the inner shell
  step "$1" "$3" bash -c 'rust_suite "$@"' bash "$path" "${@:4}"
}

main() {
  echo "=== $(uname -srm), pages of $(getconf PAGESIZE) bytes, $(nproc) processors"
  step ibv_rc_pingpong 60 bash -c pingpong
  case $(uname -r) in
    6.1.*) suite verbs_rxe verbs_rxe 400 ;;
    *)
      # Seen with 6.12, with pages of 4 KiB as well.
      echo "not run: verbs_rxe conformance_*: this kernel's soft-RoCE flushes a request that fails on this side, and those before it"
      suite verbs_rxe verbs_rxe 400 --skip conformance_
      ;;
  esac
  suite forked_children.verbs forked_children 300
  export FLAGCX_P2P_FABRIC=software
  suite unit unit 600 "${modules[@]}"
  suite fabric_conformance fabric_conformance 300
  suite mapped_regions mapped_regions 200
  suite direct_copies direct_copies 200
  suite forked_children.software forked_children 300
  all_passed
}

main
