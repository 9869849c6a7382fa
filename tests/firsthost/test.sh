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

add_port() { # DEVICE PORT STATE LINK_LAYER
  local port=$folder/root/sys/class/infiniband/$1/ports/$2
  mkdir -p "$port"
  echo "$3" >"$port/state"
  echo "$4" >"$port/link_layer"
  echo '400 Gb/sec (4X NDR)' >"$port/rate"
}

# Two GPUs; three active ports of two devices, one of which is number 10, and one that is down.
add_port mlx5_2 1 '4: ACTIVE' InfiniBand
add_port mlx5_2 2 '4: ACTIVE' Ethernet
add_port mlx5_10 1 '4: ACTIVE' InfiniBand
add_port mlx5_3 1 '1: DOWN' InfiniBand
mkdir -p "$folder/root/proc/driver/nvidia/gpus/0000:3b:00.0" "$folder/root/proc/driver/nvidia/gpus/0000:18:00.0"

cd "$folder"
FIRSTHOST_ROOT=$folder/root "$here/run.sh" --dry-run --seconds 3 --tool "$tool" >output
expect 3 '^## Port mlx5_(2:1|2:2|10:1), host memory$'
expect 6 '^## GPU [01] \(0000:(18|3b):00.0\) and port mlx5_'
expect 1 '^## GPU 0 \(0000:18:00.0\) and port mlx5_10:1$'
expect 6 '^would run: ib_write_bw -d mlx5_[0-9]+ -i [12] -p [0-9]+ -s (65536|1048576) -D 3 -F --report_gbits$'
expect 12 ' --use_cuda=[01] --use_cuda_dmabuf$'
expect 2 'FLAGCX_IB_HCA==mlx5_2:2 .*bench local --path verbs --cases 1x65536,1x1048576 --depth (1|64) --seconds 3$'
expect 1 '^## One rail beside two$'
expect 1 'FLAGCX_IB_HCA==mlx5_2:1,mlx5_10:1 FLAGCX_P2P_RAILS=1 FLAGCX_P2P_RAIL_MIN_BYTES=4096 .*bench local --path verbs --sizes 16M,.*,64K --seconds 3 '
expect 1 'FLAGCX_IB_HCA==mlx5_2:1,mlx5_10:1 FLAGCX_P2P_RAILS=2 FLAGCX_P2P_RAIL_MIN_BYTES=4096 '
expect 1 '^would run: env CUDA_VISIBLE_DEVICES=1 GPU_SUITE_NIC=mlx5_10:1 '
expect 0 mlx5_3
expect 1 '^nothing was run$'
[ "$(grep -oE -- '-p [0-9]+' output | sort | uniq -d)" = '' ] || fail 'two of perftest have one TCP port'
[ "$(ls)" = "$(printf 'output\nroot')" ] || fail 'a dry run has written files'

mkdir empty
FIRSTHOST_ROOT=$folder/empty "$here/run.sh" --dry-run --tool "$tool" >output
expect 1 '^not run: there is no active RDMA port'
expect 0 '^## (Port|One rail)'

# For real, without ports: the report has what was found and what is missing. No NIC and no GPU is played as one.
FIRSTHOST_ROOT=$folder/empty FLAGCX_P2P_FABRIC=software "$here/run.sh" --tool "$tool" --out report.md >output || true
cp report.md output
expect 1 '^## Devices$'
expect 1 'provider: software'
expect 1 '^not run: there is no active RDMA port'
expect 1 '^(No command|A command) of the project failed'

# One rail beside two, for real but briefly, and between two software devices: options, lines and columns are those of the tool.
cat >software <<END
#!/bin/bash
[ -n "\${FLAGCX_P2P_RAILS:-}" ] || exit 0
args=("\${@/verbs/tcp}")
args=("\${args[@]/#600/0.1}")
exec env -u FLAGCX_IB_HCA FLAGCX_P2P_FABRIC=software FLAGCX_P2P_SOFTWARE_DEVICES="\${DEVICES:-2}" \
  "$tool" "\${args[@]/#16M,*/16M,64K}" --repeats 1 --pool 32M
END
# What a tool would say of two NICs: WRITEs gain from 512 KiB on, READs at no size.
cat >played <<'END'
#!/bin/bash
[ -n "${FLAGCX_P2P_RAILS:-}" ] || exit 0
echo 'rail 1 is added: mlx5_2:1 to mlx5_2:1'
if [ "$FLAGCX_P2P_RAILS" = 1 ]; then
  rows='write,1048576,40 write,524288,30 write,262144,20 write,131072,10 read,1048576,40 read,524288,30'
else
  rows='write,1048576,60 write,524288,31.5 write,262144,20.9 write,131072,20 read,1048576,41 read,524288,45'
fi
printf '%s\n' operation,size,gigabytes_per_second $rows >"${*: -1}"
END
chmod +x software played

rails() { # TOOL: runs it where two ports are played
  FIRSTHOST_ROOT=$folder/two "$here/run.sh" --seconds 600 --tool "$1" --out report.md >output || fail 'a command of the project failed'
}
for port in 1 2; do
  mkdir -p "two/sys/class/infiniband/mlx5_$port/ports"
  cp -r root/sys/class/infiniband/mlx5_2/ports/1 "two/sys/class/infiniband/mlx5_$port/ports"
done
rails "$folder/software"
expect 4 '^\| (write|read) \| [0-9]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|$'
expect 2 '^(write|read): two rails are faster by 5 % (from [0-9]+ bytes on|at no size)$'
DEVICES=1 rails "$folder/software"
expect 1 '^not compared: no second rail was made over mlx5_1:1,mlx5_2:1'
expect 0 'two rails are faster'
rails "$folder/played"
expect 1 '^\| write \| 524288 \| 30.00 \| 31.50 \| 1.05 \|$'
expect 1 '^write: two rails are faster by 5 % from 524288 bytes on$'
expect 1 '^read: two rails are faster by 5 % at no size$'

"$here/run.sh" --nonsense >output 2>&1 && fail 'an unknown option is taken'
expect 1 '^  run.sh .--dry-run. '
echo 'firsthost: ok'
