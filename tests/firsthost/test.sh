#!/bin/bash
# test.sh TOOL: run.sh over played trees of /sys and /proc, without running anything, and once for real on this machine.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tool=${1:?usage: test.sh TOOL}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
  echo "FAILED: $1" >&2
  exit 1
}

# expect COUNT PATTERN: so many lines of the output have it.
expect() {
  local count
  count=$(grep -cE -- "$2" "$folder/output" || true)
  [ "$count" = "$1" ] || {
    cat "$folder/output" >&2
    fail "$count lines with '$2', not $1"
  }
}

add_port() { # DEVICE PORT STATE
  mkdir -p "$folder/root/sys/class/infiniband/$1/ports/$2"
  echo "$3" >"$folder/root/sys/class/infiniband/$1/ports/$2/state"
}

# Two GPUs; three active ports of two devices, one of which is number 10, and one that is down.
add_port mlx5_2 1 '4: ACTIVE'
add_port mlx5_2 2 '4: ACTIVE'
add_port mlx5_10 1 '4: ACTIVE'
add_port mlx5_3 1 '1: DOWN'
mkdir -p "$folder/root/proc/driver/nvidia/gpus/0000:3b:00.0" "$folder/root/proc/driver/nvidia/gpus/0000:18:00.0"

cd "$folder"
FIRSTHOST_ROOT=$folder/root "$here/run.sh" --dry-run --seconds 3 --tool "$tool" >output
expect 3 '^## Port mlx5_(2:1|2:2|10:1), host memory$'
expect 6 '^## GPU [01] \(0000:(18|3b):00.0\) and port mlx5_'
expect 1 '^## GPU 0 \(0000:18:00.0\) and port mlx5_10:1$'
expect 6 '^would run: ib_write_bw -d mlx5_[0-9]+ -i [12] -p [0-9]+ -s (65536|1048576) -D 3 -F --report_gbits$'
expect 12 ' --use_cuda=[01] --use_cuda_dmabuf$'
expect 2 'FLAGCX_IB_HCA==mlx5_2:2 .*bench local --path verbs --cases 1x65536,1x1048576 --depth (1|64) --seconds 3$'
expect 1 '^would run: env CUDA_VISIBLE_DEVICES=1 GPU_SUITE_NIC=mlx5_10:1 '
expect 0 mlx5_3
expect 1 '^nothing was run$'
[ "$(grep -oE -- '-p [0-9]+' output | sort | uniq -d)" = '' ] || fail 'two of perftest have one TCP port'
[ "$(ls)" = "$(printf 'output\nroot')" ] || fail 'a dry run has written files'

mkdir empty
FIRSTHOST_ROOT=$folder/empty "$here/run.sh" --dry-run --tool "$tool" >output
expect 1 '^not run: there is no active RDMA port'
expect 0 '^## Port'

# For real, without ports: the report has what was found and what is missing. No NIC and no GPU is played as one.
FIRSTHOST_ROOT=$folder/empty FLAGCX_P2P_FABRIC=software "$here/run.sh" --tool "$tool" --out report.md >output || true
cp report.md output
expect 1 '^## Devices$'
expect 1 'provider: software'
expect 1 '^not run: there is no active RDMA port'
expect 1 '^(No command|A command) of the project failed'

"$here/run.sh" --nonsense >output 2>&1 && fail 'an unknown option is taken'
expect 1 '^  run.sh .--dry-run. '
echo 'firsthost: ok'
