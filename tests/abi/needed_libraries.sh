#!/bin/bash
# needed_libraries.sh PREFIX GTEST_DIR CARGO_DIR: no program of the project needs the RDMA libraries to start. Looked at
# are the shared library under PREFIX, the C++ suites, the command-line tool and the Rust test programs.
set -euo pipefail
prefix=$1 gtest_dir=$2 cargo_dir=$3
shopt -s nullglob

rust_tests() { # the newest program of each name: older ones are left-overs of other sources
  local file name
  declare -A seen
  for file in $(find "$cargo_dir/deps" -maxdepth 1 -type f -executable ! -name '*.so' -printf '%T@ %p\n' | sort -rn | cut -d' ' -f2); do
    name=$(basename "$file"); name=${name%-*}
    [ -n "${seen[$name]:-}" ] || echo "$file"
    seen[$name]=1
  done
}

mapfile -t programs < <(rust_tests)
programs+=("$prefix"/lib/libflagcx_p2p.so "$cargo_dir"/flagcx-p2p "$gtest_dir"/test_*)
failed=0
for program in "${programs[@]}"; do
  needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  if grep -E '^lib(ibverbs|rdmacm|mlx5|efa)\b' <<<"$needed"; then
    echo "^ needed by $program"
    failed=1
  fi
done
echo "${#programs[@]} programs looked at"
exit $failed
