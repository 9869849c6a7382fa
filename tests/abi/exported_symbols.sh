#!/bin/bash
# exported_symbols.sh PREFIX LIST: the shared library under PREFIX exports exactly the names of LIST.
set -euo pipefail
library=$1/lib/libflagcx_p2p.so list=$2
diff <(grep -v -e '^#' -e '^$' "$list" | sort) <(nm -D --defined-only --format=just-symbols "$library" | sort) |
  sed -n 's/^</listed, not exported:/p; s/^>/exported, not listed:/p' | c++filt | tee /dev/stderr | (! grep -q .)
echo "$(nm -D --defined-only "$library" | wc -l) names, all of $list"
