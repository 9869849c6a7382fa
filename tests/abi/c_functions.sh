#!/bin/bash
# c_functions.sh SOURCE_DIR: every exported function of C linkage is declared by a public header, every function that the
# headers declare in C form is exported, and every one of these is called by the C suites.
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

exported=$(grep -E '^flagcxP2p' cpp/exports.txt | sort -u)
declared=$(grep -ohE '\bflagcxP2p[A-Za-z0-9]+\(' cpp/include/flagcx_p2p_ext.h cpp/include/flagcx_p2p.h | tr -d '(' | sort -u)
in_c_form=$(grep -ohE '\bflagcxP2pC[A-Z][A-Za-z0-9]+\(' cpp/include/flagcx_p2p_ext.h | tr -d '(' | sort -u)
called=$(grep -ohE '\bflagcxP2pC[A-Z][A-Za-z0-9]+\b' tests/c/*.c | sort -u)

only_in_first "exported, in no header" "$exported" "$declared"
only_in_first "declared, not in cpp/exports.txt" "$in_c_form" "$exported"
only_in_first "not called by tests/c" "$in_c_form" "$called"
[ "$(wc -l <<<"$in_c_form")" -gt 20 ] || { echo "found too few functions in C form" >&2; failed=1; }
echo "$(wc -l <<<"$in_c_form") functions in C form"
exit $failed
