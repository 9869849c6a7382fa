#!/bin/bash
# headers.sh INCLUDE_DIR CXX: each public header compiles alone, in every language version that callers use, under the
# warnings of FlagCX's build and more.
set -euo pipefail
include=$1 cxx=$2
for header in flagcx_p2p.h flagcx_p2p_ext.h; do
  for standard in c++11 c++14 c++17 c++20; do
    echo "#include \"$header\"" | "$cxx" -std=$standard -fsyntax-only -Wall -Wextra -Wvla -Wpedantic -Werror -I"$include" -x c++ -
  done
done
echo '#include "flagcx_p2p_ext.h"' | "${CC:-cc}" -std=c99 -fsyntax-only -Wall -Wextra -Wpedantic -Werror -I"$include" -x c -
