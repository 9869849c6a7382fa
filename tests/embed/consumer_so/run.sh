#!/bin/bash
# run.sh PREFIX WORK CXX [CXX_FLAG...]: links the library installed under PREFIX into a plugin, with no linker flag but
# pkg-config's and with a second Rust library beside it; loads the plugin; checks that it exports no internal name.
set -euo pipefail
prefix=$1 work=$2 cxx=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"
cd "$work"

export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
read -ra compile < <(pkg-config --cflags flagcx_p2p)
read -ra link < <(pkg-config --static --libs flagcx_p2p)
rustc --edition 2024 --crate-type staticlib -C panic=abort -o libother.a "$here/other.rs"
"$cxx" "$@" -fPIC -shared "${compile[@]}" "$here/plugin.cc" -o plugin.so "${link[@]}" -L. -lother -Wl,-z,defs
"$cxx" "$@" "$here/host.cc" -o host -ldl
./host ./plugin.so

# The names of the public headers may be exported: the archive offers them to all. No other name may.
leaked=$(nm -D --defined-only --format=just-symbols plugin.so | sort |
  comm -23 - <({ grep -v -e '^#' -e '^$' "$here/../../../cpp/exports.txt"; echo plugin_metadata; } | sort) |
  grep -e cxxbridge -e flagcx -e ibv_ || true)
if [ -n "$leaked" ]; then
  echo "the plugin exports:"
  echo "$leaked"
  exit 1
fi
