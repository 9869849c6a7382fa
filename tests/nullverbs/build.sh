#!/bin/sh
# build.sh OUT: builds the stand-in libibverbs.so.1 into OUT/lib and raw_bench into OUT.
# Needs a C compiler ($CC, default cc) and the headers of libibverbs-dev.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT}
cc=${CC:-cc}
mkdir -p "$out/lib"

# First into a temporary file: tests that build concurrently never load an incomplete library.
build() {
    target=$1
    shift
    "$cc" -O2 -g -std=gnu11 -Wall -Wextra -Werror "$@" -o "$target.$$"
    mv -f "$target.$$" "$target"
}

build "$out/lib/libibverbs.so.1" "$here"/settings.c "$here"/profile.c "$here"/device.c "$here"/addresses.c \
    "$here"/memory.c "$here"/completion.c "$here"/queue_pair.c "$here"/post.c "$here"/unsupported.c -fPIC -shared -pthread \
    -Wl,-soname,libibverbs.so.1 -Wl,--version-script="$here/nullverbs.map"
ln -sfn libibverbs.so.1 "$out/lib/libibverbs.so"
build "$out/raw_bench" "$here/raw_bench.c" -L"$out/lib" -libverbs
echo "$out/lib/libibverbs.so.1"
