#!/bin/sh
# package.sh FOLDER LIBRARY COMMAND...: runs the command, which builds the native module as LIBRARY, and makes FOLDER/flagcx_p2p: the
# Python package as it is installed.
set -eu
folder=$1 library=$2
shift 2
"$@"
source=$(dirname "$0")/../../python/flagcx_p2p
rm -rf "$folder/flagcx_p2p"
mkdir -p "$folder/flagcx_p2p/mooncake"
cp "$source"/*.py "$source"/*.pyi "$source"/py.typed "$folder/flagcx_p2p/"
cp "$source"/mooncake/*.py "$folder/flagcx_p2p/mooncake/"
cp "$library" "$folder/flagcx_p2p/_native.abi3.so"
