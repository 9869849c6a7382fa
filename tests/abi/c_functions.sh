#!/bin/bash
# c_functions.sh SOURCE_DIR: every exported function of C linkage is declared by a public header, every function that
# flagcx_p2p_ext.h and flagcx_p2p_rails.h declare is exported, and every one of these is called by the C suites.
set -euo pipefail
cd "$1"
failed=0

# only_in_first WHAT NAMES OTHERS: no name may be there alone.
only_in_first() {
  local names
  names=$(comm -23 <(echo "$2") <(echo "$3"))
  [ -n "$names" ] || return 0
  printf '%s:\n%s\n' "$1" "$names" >&2
  failed=1
}

# The names before a parenthesis in these files, comments left out.
declared_by() {
  grep -hvE '^ ?\*|^ */[/*]' "$@" | grep -ohE '\bflagcxP2p[A-Za-z0-9]+\(' | tr -d '(' | sort -u
}

exported=$(grep -E '^flagcxP2p' cpp/exports.txt | sort -u)
declared=$(declared_by cpp/include/*.h)
for_c=$(declared_by cpp/include/flagcx_p2p_ext.h cpp/include/flagcx_p2p_rails.h)
called=$(declared_by tests/c/*.c)

only_in_first "exported, in no header" "$exported" "$declared"
only_in_first "declared, not in cpp/exports.txt" "$for_c" "$exported"
only_in_first "not called by tests/c" "$for_c" "$called"
[ "$(wc -l <<<"$for_c")" -gt 40 ] || { echo "found too few functions for C" >&2; failed=1; }
echo "$(wc -l <<<"$for_c") functions for C"
exit $failed
