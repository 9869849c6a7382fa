#!/bin/bash
# Runs the GPU suite of `./x gpu pack` on this machine, which needs a GPU with its driver and no compiler.
#
#   run.sh              over the driver's libcuda.so.1; without a GPU it prints the reason and runs nothing
#   run.sh --stand-in   over the stand-in driver in this folder: tests this script and the suite
#
# One line for each check, a line with the counts at the end. With OUT set the report is also in $OUT/gpu.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Folders of drivers that are not in the linker's cache, in containers and virtual machines.
readonly FOLDERS=(/usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib/wsl/lib)

find_driver() {
  local folder found
  found=$(ldconfig -p 2>/dev/null | awk '$1 == "libcuda.so.1" && /x86-64/ { print $NF; exit }')
  for folder in "${FOLDERS[@]}"; do
    [ -n "$found" ] || [ ! -e "$folder/libcuda.so.1" ] || found=$folder/libcuda.so.1
  done
  echo "$found"
}

if [ "${1:-}" = --stand-in ]; then
  driver=$here/nullcuda/libcuda.so.1
elif [ ! -e /dev/nvidia0 ] && [ ! -e /dev/dxg ]; then
  echo "not run: there is no GPU, neither /dev/nvidia0 nor /dev/dxg"
  exit 0
else
  driver=$(find_driver)
  [ -n "$driver" ] || {
    echo "not run: there is no libcuda.so.1, neither in ldconfig -p nor in ${FOLDERS[*]}"
    exit 0
  }
  # The driver loads further libraries from its folder.
  LD_LIBRARY_PATH=$(dirname "$driver")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
fi
GPU_SUITE_LIBCUDA=$driver exec "$here/gpu_suite"
