#!/bin/bash
# build.sh OUT LIBRARY: the stand-in NIC, and header_bench with the shared library that is in the folder LIBRARY.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$1 library=$2
"$source/tests/nullverbs/build.sh" "$out" >/dev/null
c++ -O2 -std=c++17 -Wall -Wextra -I"$source/cpp/include" "$source/tests/header_bench/header_bench.cc" -o "$out/header_bench" \
  -L"$library" -lflagcx_p2p -Wl,-rpath,"$library" -pthread
