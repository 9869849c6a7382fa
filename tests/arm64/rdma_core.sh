#!/bin/bash
# rdma_core.sh FOLDER COMPILER...: into FOLDER, libibverbs and librdmacm for another machine, empty, with their files of pkg-config.
# rdma-sys asks pkg-config for them and has the linker look for them, which then leaves them out: the engine opens them when it runs. Their
# headers, the same for every machine, are this one's.
set -eu
folder=$1
shift
mkdir -p "$folder"
for name in libibverbs librdmacm; do
  [ ! -e "$folder/$name.pc" ] || continue
  "$@" -shared -o "$folder/$name.so" -x c /dev/null
  version=$(env -u PKG_CONFIG_LIBDIR pkg-config --modversion "$name")
  printf 'Name: %s\nDescription: stand-in\nVersion: %s\nLibs: -L%s -l%s\nCflags: -I/usr/include\n' \
    "$name" "$version" "$folder" "${name#lib}" >"$folder/$name.pc"
done
