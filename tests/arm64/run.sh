#!/bin/bash
# run.sh check | library | build | machine | tests [CTEST ARGS]: this project for Linux on ARM64, compiled here by Debian's cross compiler, and run by qemu's
# emulation of programs. Cargo's files are in target/aarch64-unknown-linux-gnu, all others in target/arm64. `./x check` and
# `./x test arm64` call it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly TARGET=aarch64-unknown-linux-gnu OUT=$PWD/target/arm64

main() {
  case ${1:-} in
    check | library | build | machine | tests)
      environment
      "$@"
      ;;
    *)
      sed -n '2p' "${BASH_SOURCE[0]}" >&2
      exit 2
      ;;
  esac
}

# What cargo, rdma-sys and the crates with C code take, the same as CMake's for the same: else they would be built again.
environment() {
  local compiler
  compiler=$(command -v aarch64-linux-gnu-g++) || {
    echo "tests/arm64/run.sh: aarch64-linux-gnu-g++ is missing: install Debian's g++-aarch64-linux-gnu" >&2
    exit 1
  }
  export -n CARGO_TARGET_DIR
  export CARGO_BUILD_TARGET_DIR=$PWD/target CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$compiler
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=$compiler
  AR_aarch64_unknown_linux_gnu=$(command -v aarch64-linux-gnu-ar)
  export AR_aarch64_unknown_linux_gnu
  # Without it the emulator, which takes several times as long for everything, would exceed the tests' limits.
  export CARGO_PROFILE_DEV_OPT_LEVEL=1
  # The headers of rdma-core are this machine's; those of the C library are ARM64's.
  export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=$OUT/rdma-core BINDGEN_EXTRA_CLANG_ARGS=-I/usr/aarch64-linux-gnu/include
  tests/arm64/rdma_core.sh "$OUT/rdma-core" aarch64-linux-gnu-gcc
}

# Every crate, with the verbs provider and without, and the facade: layouts that they assert are compared by the compilers, those of
# rdma-sys, of flagcx_p2p.h and of the tables of FlagCX's adaptors among them. Nothing is linked: `build` does that.
check() {
  local source
  cargo check --workspace --locked --target "$TARGET"
  cargo check --locked --target "$TARGET" -p flagcx-p2p -p flagcx-p2p-bridge -p flagcx-p2p-cli --no-default-features \
    --features flagcx-p2p-bridge/metrics-endpoint,flagcx-p2p-cli/metrics-endpoint
  for source in cpp/src/*.cc; do
    "$CXX_aarch64_unknown_linux_gnu" -std=c++17 -fsyntax-only -Wall -Wextra -Wvla -Werror -Icpp/include \
      -I"target/$TARGET/cxxbridge" "$source"
  done
}

# The library without the verbs provider. The tests' is the one with it.
library() {
  configure without-verbs -DFLAGCX_P2P_VERBS=OFF -DFLAGCX_P2P_BUILD_TESTS=OFF
  cmake --build "$OUT/without-verbs"
  is_for_arm64 "$OUT/without-verbs/cpp/libflagcx_p2p.so"
}

# The library and all tests.
build() {
  configure build
  cmake --build "$OUT/build"
  is_for_arm64 "$OUT/build/cpp/libflagcx_p2p.so"
  aarch64-linux-gnu-gcc -O2 -std=gnu11 -Wall -Wextra -Werror -fPIC -shared tests/arm64/exec.c -o "$OUT/exec.so"
}

# The programs that run in a machine of ARM64, one a line in target/arm64/machine-programs: `name path`. See tests/rdma-vm/suite_arm64.sh.
machine() {
  local name options=()
  for name in direct_copies fabric_conformance forked_children mapped_regions verbs_rxe; do options+=(--test "$name"); done
  mkdir -p "$OUT"
  CC=aarch64-linux-gnu-gcc tests/nullverbs/build.sh "$OUT/nullverbs" >/dev/null
  cargo test --no-run --locked --target "$TARGET" -p flagcx-p2p --lib "${options[@]}" --message-format=json-render-diagnostics |
    sed -nE 's/.*"name":"([^"]*)".*"executable":"([^"]*)".*/\1 \2/p' | sed 's/^flagcx_p2p /unit /' >"$OUT/machine-programs"
}

# configure NAME [OPTION...]: the build folder NAME.
configure() {
  cmake -S . -B "$OUT/$1" -G Ninja --toolchain cmake/aarch64-linux-gnu.cmake -DCMAKE_BUILD_TYPE=Debug -DBUILD_SHARED_LIBS=ON \
    -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DFLAGCX_P2P_CARGO_TARGET_DIR="$PWD/target" "${@:2}"
}

is_for_arm64() {
  readelf -h "$1" | grep -q 'Machine: *AArch64' || {
    echo "$1 is not for ARM64" >&2
    return 1
  }
}

# All tests but those of not_run.txt, or those that options of ctest choose.
tests() {
  local filter=
  export ARM64_EMULATOR QEMU_LD_PREFIX=/usr/aarch64-linux-gnu QEMU_SET_ENV=LD_PRELOAD=$OUT/exec.so
  ARM64_EMULATOR=$(command -v qemu-aarch64-static)
  # Of nullverbs/build.sh.
  export CC=aarch64-linux-gnu-gcc
  tests/nullverbs/build.sh "$OUT/nullverbs" >/dev/null
  export FLAGCX_P2P_NULLVERBS=$OUT/nullverbs/lib/libibverbs.so.1
  while read -r program name reason; do
    [ "${program%%.*}" = gtest ] || continue
    echo "not run: arm64 $program $name $reason"
    filter+=:${name%:}
  done <tests/arm64/not_run.txt
  [ -z "$filter" ] || export GTEST_FILTER=-${filter#:}
  # Waiting entries apart, one for each processor: see tests/CMakeLists.txt.
  RUST_TEST_THREADS=$(nproc) ctest --test-dir "$OUT/build" --output-on-failure --no-tests=error -j $((2 * $(nproc))) "$@"
}

main "$@"
