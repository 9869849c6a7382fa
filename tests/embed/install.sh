#!/bin/bash
# install.sh SOURCE WORK [CMAKE_OPTION...]: builds SOURCE in WORK/build and installs it afresh under WORK/prefix.
set -euo pipefail
source=$1 work=$2
shift 2
rm -rf "$work/prefix"
cmake -S "$source" -B "$work/build" -DCMAKE_INSTALL_PREFIX="$work/prefix" -DCMAKE_INSTALL_LIBDIR=lib "$@"
cmake --build "$work/build"
cmake --install "$work/build"
