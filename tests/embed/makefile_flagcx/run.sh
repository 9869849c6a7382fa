#!/bin/bash
# run.sh PREFIX WORK CXX [CXX_FLAG...]: builds the FlagCX-shaped project with the library installed under PREFIX,
# runs its program, and checks that libflagcx.so exports the engine's names and no internal ones.
set -euo pipefail
prefix=$1 work=$2 cxx=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$work"
mkdir -p "$work"
make -C "$here" FLAGCX_P2P_HOME="$prefix" BUILDDIR="$work" HOST_COMPILER="$cxx" EXTRA_CXXFLAGS="$*"
"$work/embedded"

exported=$(nm -D --defined-only --format=just-symbols "$work/libflagcx.so" | sort)
expected=$({ grep -v -e '^#' -e '^$' "$here/../../../cpp/exports.txt"; echo flagcxGetVersion; } | sort)
diff <(echo "$expected") <(echo "$exported") || { echo "libflagcx.so exports other names than expected (<)"; exit 1; }
