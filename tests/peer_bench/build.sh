#!/bin/sh
# build.sh OUT LIBRARY_DIR: builds the drivers that are compiled into OUT, ours over the libflagcx_p2p.so of LIBRARY_DIR.
# The drivers of UCX need the Python package libucx-cu12 in OUT/ucx, or libucx-dev; without both they are not built.
# Needs a C and a C++ compiler ($CC, default cc; $CXX, default c++). $RPATH: where the drivers look for libraries first.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT LIBRARY_DIR}
library=${2:?usage: build.sh OUT LIBRARY_DIR}
cc=${CC:-cc}
cxx=${CXX:-c++}
include=$here/../../cpp/include
command -v "$cc" >/dev/null || { echo "build.sh: no C compiler $cc. Install gcc, or set CC." >&2; exit 1; }
command -v "$cxx" >/dev/null || { echo "build.sh: no C++ compiler $cxx. Install g++, or set CXX." >&2; exit 1; }
mkdir -p "$out"

c="$cc -O2 -g -std=gnu11 -Wall -Wextra -fPIC -pthread"
for source in measure serve limits limit_memory limit_tcp; do
    $c -c "$here/drivers/$source.c" -o "$out/$source.o"
done
$c -shared "$out/measure.o" "$out/serve.o" -o "$out/libmeasure.so"
$c "$out/limits.o" "$out/limit_memory.o" "$out/limit_tcp.o" "$out/measure.o" "$out/serve.o" -o "$out/limits"

# Whether the header offers memory that peers may map; ours_allocates tells the runner.
rm -f "$out/ours_allocates"
allocates=
if grep -q 'flagcxP2pEngineAllocShared(' "$include/flagcx_p2p_ext.h"; then
    allocates=-DALLOCATES
    : >"$out/ours_allocates"
fi
cpp="$cxx ${CXXFLAGS:-} -O2 -g -std=c++17 -Wall -Wextra"
$cpp $allocates -I"$include" "$here/drivers/ours.cc" "$out/measure.o" "$out/serve.o" -o "$out/ours" -L"$library" \
    -lflagcx_p2p "-Wl,-rpath,${RPATH:-$library}" -pthread

# ucx_driver: over the newer UCX, with its modules in that folder; ucx_debian_driver: over the UCX of libucx-dev.
rm -f "$out/ucx_driver" "$out/ucx_debian_driver"
build_ucx() {
    program=$1
    shift
    $c "$here/drivers/ucx.c" "$out/measure.o" "$out/serve.o" -o "$out/$program" "$@" -lucp -lucs
}
packaged=$(echo "$out"/ucx/lib/python3*/site-packages/libucx)
if echo '#include <ucp/api/ucp.h>' | "$cc" -E - >/dev/null 2>&1; then
    build_ucx ucx_debian_driver
    cp "$out/ucx_debian_driver" "$out/ucx_driver"
fi
if [ -d "$packaged/include/ucp" ]; then
    build_ucx ucx_driver -isystem "$packaged/include" -L"$packaged/lib" "-Wl,-rpath,${RPATH:-$packaged/lib}"
fi
[ -e "$out/ucx_driver" ] || echo "not built: the driver of UCX, for want of libucx-cu12 in $out/ucx and of libucx-dev"
