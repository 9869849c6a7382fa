#!/bin/bash
# headers.sh INCLUDE_DIR CXX: each public header compiles alone, in every language version that callers use, under the
# warnings of FlagCX's build and more; and all of them beside FlagCX's own declarations, before and after.
set -euo pipefail
include=$1 cxx=$2
for header in flagcx_p2p.h flagcx_p2p_ext.h flagcx_p2p_rails.h; do
  for standard in c++11 c++14 c++17 c++20; do
    echo "#include \"$header\"" | "$cxx" -std=$standard -fsyntax-only -Wall -Wextra -Wvla -Wpedantic -Werror -I"$include" -x c++ -
  done
done
for standard in c99 c11 c17; do
  for header in flagcx_p2p_ext.h flagcx_p2p_rails.h; do
    echo "#include \"$header\"" |
      "${CC:-cc}" -std=$standard -fsyntax-only -Wall -Wextra -Wpedantic -Wstrict-prototypes -Werror -I"$include" -x c -
  done
done

# FlagCX's types of the net adaptor, as the facade declares them, and some of its names that ours must not take.
flagcx='#include "../src/net_types.h"
extern "C" struct flagcxDeviceAdaptor *deviceAdaptor;
typedef struct flagcxComm *flagcxComm_t;
#define FLAGCX_PTR_HOST 0x1'
ours='#include "flagcx_p2p_ext.h"
#include "flagcx_p2p.h"'
for source in "$flagcx
$ours" "$ours
$flagcx" "$ours
$ours"; do
  echo "$source" | "$cxx" -std=c++17 -fsyntax-only -Wall -Wextra -Werror -I"$include" -x c++ -
done
