#!/bin/bash
# Runs a command on real RDMA verbs without a NIC: in a temporary virtual machine with a stock Debian kernel,
# soft-RoCE (rdma_rxe) devices, and this machine's root file system, read-only under an overlay.
#
#   run.sh [OPTIONS] [--] COMMAND [ARG...]   one guest; a single argument is run by bash -c
#   run.sh [OPTIONS] --suite BUILD_DIR       the project's suites (suite.sh), with the C++ programs of BUILD_DIR, then
#                                            transfers between two guests: a link loses packets, then one of two goes down
#   run.sh [OPTIONS] --two-nodes COMMAND     the same command in two guests with two links between them; it finds
#                                            RDMA_VM_NODE (1 or 2) and RDMA_VM_PEER (the other's address on the first link)
#   run.sh -a arm64 --suite PROGRAMS         the suites for ARM64 (suite_arm64.sh): PROGRAMS is what tests/arm64/run.sh machine writes
#   run.sh --setup                           only fetch the kernel
#
#   -a ARCH      the guest's processor: amd64, with this machine's root file system, or arm64, emulated, with one of Debian's packages
#   -p SIZE      arm64: bytes of a page, 4k or 16k (4k)
#   -t SECONDS   limit on the whole run, boot included (600)       -m MIB    memory of a guest (3072)
#   -s COUNT     processors of a guest (the host's, at most 4)     -l RATE   two nodes: packet loss, as in 0.1%
#   -w DIR       share DIR for writing, repeatable                 -v        print the guest's console at the end
#
# The command runs with FLAGCX_P2P_FABRIC=verbs and this shell's environment and folder. Its writes are lost with the
# guest, but for those under -w. Exit status: the command's own; 124 out of time; 125 no guest, with the reason.
#
# Needs root and, on Debian: qemu-system-x86 (qemu-system-arm) kmod cpio xz-utils busybox-static iproute2 rdma-core ibverbs-providers
# ibverbs-utils. The kernel is fetched once with apt-get, never installed, and kept in
# ${RDMA_VM_CACHE:-${XDG_CACHE_HOME:-~/.cache}/flagcx-p2p/rdma-vm}.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
# shellcheck source=tests/rdma-vm/kernel.sh
. "$here/kernel.sh"
# shellcheck source=tests/rdma-vm/guest.sh
. "$here/guest.sh"
# shellcheck source=tests/rdma-vm/arm64.sh
. "$here/arm64.sh"

architecture=amd64 image='' page=4k guest_root=/
limit=600 memory=3072 loss='' verbose=0 mode=command
processors=$(nproc)
[ "$processors" -le 4 ] || processors=4
shares=()

usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

die() {
  echo "rdma-vm: $*" >&2
  exit 125
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      -t) limit=$2 && shift 2 ;;
      -m) memory=$2 && shift 2 ;;
      -s) processors=$2 && shift 2 ;;
      -l) loss=$2 && shift 2 ;;
      -a) architecture=$2 && shift 2 ;;
      -p) page=$2 && shift 2 ;;
      -w) shares+=("$(realpath "$2")") && shift 2 ;;
      -v) verbose=1 && shift ;;
      -h | --help) usage && exit 0 ;;
      --suite | --two-nodes | --setup) mode=${1#--} && shift && break ;;
      --) shift && break ;;
      -*) die "unknown option $1; see run.sh --help" ;;
      *) break ;;
    esac
  done
  arguments=("$@")
  case $architecture-$page in
    amd64-4k | arm64-4k) image=linux-image-$architecture ;;
    arm64-16k) image=linux-image-arm64-16k && kernel_release=trixie ;;
    *) die "no kernel of Debian is for $architecture with pages of $page" ;;
  esac
  [ "$architecture" = amd64 ] || boot_limit=240
  [ "$mode" = setup ] || [ $# -gt 0 ] || die "no command; see run.sh --help"
}

check_host() {
  local tool qemu=qemu-system-x86_64
  [ "$architecture" = amd64 ] || qemu="qemu-system-aarch64"
  for tool in "$qemu" depmod modprobe cpio xz busybox ip rdma flock; do
    command -v "$tool" >/dev/null || die "$tool is missing: install the packages that run.sh --help names"
  done
  [ "$(id -u)" = 0 ] || die "run this as root: the guest reads the host's files with the rights of the calling user"
}

# An emulated guest may hang while it boots, before anything of ours runs (seen once): that is tried once more. `$@` runs
# guests.
unless_boot_fails() {
  local status=0
  "$@" || status=$?
  [ $boot_failed = 1 ] || return "$status"
  stop_guests
  boot_failed=0
  echo "rdma-vm: booting once more" >&2
  "$@"
}

# Ends with the command's status.
run_one() {
  local control
  control=$(new_control "$(shell_words "$@")")
  boot "$control" ''
  wait_for "$control"
}

# Both guests run the command; the first failure counts.
run_two() {
  local command first second status=0 status_of_second=0
  command=$(shell_words "$@")
  first=$(new_control "$command" 1) second=$(new_control "$command" 2)
  boot "$first" 'node 1' "$(link_options "$first/link" server)"
  until [ -S "$first/link2" ] || ! kill -0 "$(cat "$first/process")" 2>/dev/null; do sleep 0.1; done
  boot "$second" 'node 2' "$(link_options "$first/link" client)"
  wait_for_start "$first" && wait_for_start "$second" || return 125
  wait_for "$first" || status=$?
  wait_for "$second" || status_of_second=$?
  [ "$status" != 0 ] || status=$status_of_second
  return "$status"
}

# One argument is a command line already; several are quoted into one.
shell_words() {
  if [ $# = 1 ]; then
    printf '%s\n' "$1"
  else
    printf '%q ' "$@"
  fi
}

# All of the project is shared with the guest, which has another root file system.
run_arm64_suite() {
  local programs
  programs=$(realpath "$1") || die "there is no file $1: call tests/arm64/run.sh machine"
  shares+=("$(realpath "$here/../..")")
  unless_boot_fails run_one "$here/suite_arm64.sh" "$programs"
}

run_suite() {
  local build status=0
  build=$(realpath "$1") || die "there is no build folder $1"
  shares+=("$(mktemp -d "$scratch/suite.XXXXXX")")
  rust_programs >"${shares[-1]}/rust_programs" || die "cargo cannot build the tests"
  echo "=== one node"
  unless_boot_fails run_one "$here/suite.sh" "${shares[-1]}/rust_programs" "$build" || status=$?
  echo "=== two nodes: links that lose 0.1% of the packets, then one of them goes down"
  loss=0.1% limit=240
  unless_boot_fails run_two "$here/suite_two_nodes.sh" "${shares[-1]}/rust_programs" || status=$?
  return "$status"
}

# The test programs that cargo has built, one a line: `name path`.
rust_programs() {
  local root
  root=$(cd "$here/../.." && pwd)
  cargo test --quiet --manifest-path "$root/Cargo.toml" --workspace --lib --tests --no-run --locked \
    --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' |
    while read -r path; do
      name=${path##*/}
      # A test program carries a hash behind its name, the tool does not.
      [[ $name =~ ^(.*)-[0-9a-f]{16}$ ]] && name=${BASH_REMATCH[1]}
      echo "$name $path"
    done | sort -u
}

main() {
  parse "$@"
  check_host
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/rdma-vm.XXXXXX")
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  prepare_kernel
  # Not in its root file system.
  [ "$architecture" = amd64 ] || shares+=("$modules")
  case $mode in
    setup) echo "$kernel" ;;
    command) unless_boot_fails run_one "${arguments[@]}" ;;
    two-nodes) unless_boot_fails run_two "${arguments[@]}" ;;
    suite) if [ "$architecture" = amd64 ]; then run_suite "${arguments[@]}"; else run_arm64_suite "${arguments[@]}"; fi ;;
  esac
}

main "$@"
