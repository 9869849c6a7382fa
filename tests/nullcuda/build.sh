#!/bin/sh
# build.sh OUT: builds the stand-in libcuda.so.1 into OUT. Needs a C compiler ($CC, default cc) and nothing of CUDA.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT}
mkdir -p "$out"
# First into a temporary file: tests that build concurrently never load an incomplete library.
"${CC:-cc}" -O2 -g -std=gnu11 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -shared -pthread \
    "$here"/context.c "$here"/mapping.c "$here"/memory.c "$here"/pool.c "$here"/stream.c -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1.$$"
mv -f "$out/libcuda.so.1.$$" "$out/libcuda.so.1"
echo "$out/libcuda.so.1"
