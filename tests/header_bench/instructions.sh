#!/bin/bash
# instructions.sh WORK CMAKE_OPTION...: builds the library in WORK, optimised, and counts there: instructions.py.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$1
shift
skip() {
  echo "not run: $1"
  exit 77
}
command -v valgrind >/dev/null || skip "valgrind is missing (package valgrind)"
[ "$(uname -m)" = x86_64 ] || skip "the bounds are those of x86-64"
# Link-time optimisation and line tables are a fifth of the build, and change counts by about a hundredth.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0
cmake -S "$here/../.." -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DFLAGCX_P2P_BUILD_TESTS=OFF "$@"
cmake --build "$work/build"
"$here/build.sh" "$work" "$work/build/cpp"
python3 -B "$here/instructions.py" "$work"
