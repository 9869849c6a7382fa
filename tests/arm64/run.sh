#!/bin/bash
# run.sh check | facade | programs | test: this project for Linux on ARM64, compiled here with Debian's cross compiler, and run by qemu's
# emulation of programs. Everything is in target/arm64. `./x check` and `./x test arm64` call it.
set -eu
cd "$(dirname "$0")/../.."

readonly TARGET=aarch64-unknown-linux-gnu OUT=$PWD/target/arm64
readonly EMULATOR=(qemu-aarch64-static -L /usr/aarch64-linux-gnu)

# Tests that the emulator cannot carry, each as PROGRAM NAME: REASON; a NAME is the end of a path. They are printed.
readonly NOT_RUN='
unit foreign::tests::bytes_come_across_in_order: process_vm_readv is not emulated
unit foreign::tests::memory_that_is_not_there_is_an_error: process_vm_readv is not emulated
unit kernel_copy::tests::says_which_side_is_gone: process_vm_readv is not emulated
unit readable::tests::both_ends_count: process_vm_readv is not emulated
unit life_word::tests::a_word_tells_that_its_thread_has_ended_however_it_did: set_robust_list is not emulated
unit mappings::tests::large_mappings_push_others_out_and_too_large_ones_are_refused: addresses of the emulated program are too few
unit path_facts::tests::a_connection_over_loopback_has_an_mtu: TCP_INFO is not emulated
unit quick_clock::tests::it_is_the_clock: the emulated counter is not the clock
unit handshake::tests::ours::full_region_tables_are_exchanged_quickly: its time limit
unit endpoint::tests::limits_end_those_that_do_not_send_and_those_that_do_not_read: its time limit
unit worker::tests::of_many_that_wait_those_that_are_late_end_and_the_others_cost_nothing: its time limit
engine_transfers a_million_pieces_in_one_call: takes minutes
fabric_conformance cross_memory_within_a_process: process_vm_readv is not emulated
fabric_conformance bytes_moved_by_another_thread: process_vm_readv is not emulated
fabric_conformance between_processes: a program of ARM64 cannot start itself again without binfmt_misc
'

environment() {
  export CARGO_TARGET_DIR=$OUT/cargo CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
  export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
  # The headers of rdma-core are the same for both; those of the C library are ARM64's.
  export PKG_CONFIG_ALLOW_CROSS=1 BINDGEN_EXTRA_CLANG_ARGS=-I/usr/aarch64-linux-gnu/include
  stand_in_rdma_core "$OUT/rdma-core"
  export PKG_CONFIG_LIBDIR=$OUT/rdma-core
}

# Into FOLDER: libibverbs and librdmacm for ARM64, empty. rdma-sys has the linker look for them; the engine opens them when it runs.
stand_in_rdma_core() {
  local name
  mkdir -p "$1"
  for name in libibverbs librdmacm; do
    [ -e "$1/$name.pc" ] && continue
    aarch64-linux-gnu-gcc -shared -o "$1/$name.so" -x c /dev/null
    printf 'Name: %s\nDescription: stand-in\nVersion: %s\nLibs: -L%s -l%s\nCflags: -I/usr/include\n' \
      "$name" "$(pkg-config --modversion "$name")" "$1" "${name#lib}" >"$1/$name.pc"
  done
}

# Every crate, with the verbs provider and without: layouts that the code asserts are compared by the compiler, those of rdma-sys and of the
# tables of FlagCX's adaptors among them. The C++ that cxx generates is compiled.
check() {
  cargo check --quiet --workspace --locked --target "$TARGET"
  cargo check --quiet --locked --target "$TARGET" -p flagcx-p2p -p flagcx-p2p-bridge -p flagcx-p2p-cli --no-default-features \
    --features flagcx-p2p-bridge/metrics-endpoint,flagcx-p2p-cli/metrics-endpoint
}

# The shared library by CMake's toolchain file, with the verbs provider and without.
facade() {
  local verbs
  for verbs in ON OFF; do
    cmake -S . -B "$OUT/facade-verbs-$verbs" -G Ninja --toolchain cmake/aarch64-linux-gnu.cmake -DCMAKE_BUILD_TYPE=Debug \
      -DBUILD_SHARED_LIBS=ON -DFLAGCX_P2P_BUILD_TESTS=OFF -DFLAGCX_P2P_VERBS=$verbs -DFLAGCX_P2P_CARGO_TARGET_DIR="$OUT/cargo"
    cmake --build "$OUT/facade-verbs-$verbs"
    file_is_for_arm64 "$OUT/facade-verbs-$verbs/cpp/libflagcx_p2p.so"
  done
}

file_is_for_arm64() {
  readelf -h "$1" | grep -q 'Machine: *AArch64' || {
    echo "$1 is not for ARM64" >&2
    return 1
  }
}

# The programs of the tests, their paths in target/arm64/programs, and the stand-in libibverbs.
programs() {
  CC=aarch64-linux-gnu-gcc tests/nullverbs/build.sh "$OUT/nullverbs" >/dev/null
  cargo test --no-run --locked --target "$TARGET" -p flagcx-p2p --lib --test engine_transfers --test fabric_conformance \
    --test verbs_nullverbs --message-format=json-render-diagnostics |
    sed -nE 's/.*"name":"([^"]*)".*"executable":"([^"]*)".*/\1 \2/p' | sed 's/^flagcx_p2p /unit /' >"$OUT/programs"
  [ "$(wc -l <"$OUT/programs")" = 4 ]
}

run_tests() {
  local name program failed=0
  export FLAGCX_P2P_NULLVERBS=$OUT/nullverbs/lib/libibverbs.so.1
  while read -r name program; do
    run_program "$name" "$program" || failed=1
  done <"$OUT/programs"
  return $failed
}

# run_program NAME FILE: all of its tests but those of the list above.
run_program() {
  local of rest skipped=()
  while read -r of rest; do
    [ "$of" = "$1" ] || continue
    skipped+=(--skip "${rest%%: *}")
    echo "not run: arm64 $1 ${rest}"
  done <<<"$NOT_RUN"
  echo "arm64: $1"
  (cd rust/core && timeout 540 "${EMULATOR[@]}" "$2" ${skipped[@]+"${skipped[@]}"} </dev/null)
}

environment
case ${1:-} in
  check | facade | programs) "$1" ;;
  test) run_tests ;;
  *)
    echo "usage: run.sh check | facade | programs | test" >&2
    exit 2
    ;;
esac
