#!/bin/bash
# Looks over the first machine with a real NIC, measures it, and writes all of it into one report, to be sent to the project.
#
#   run.sh [--dry-run] [--seconds S] [--tool FILE] [--gpu-suite FOLDER] [--out FILE]
#
#   --dry-run     prints the commands and runs none of them
#   --seconds S   length of each measurement (2)
#   --tool FILE   the tool flagcx-p2p: beside this script, or in the PATH
#   --gpu-suite   folder of `./x gpu pack`: gpu-suite beside this script
#   --out FILE    the report: firsthost-HOSTNAME.md in the current folder
#
# Changes nothing: no setting, no module, no file but the report. Each pair of an active port and a GPU is measured by itself;
# two ports beside one where there are two of the same kind.
# What is not installed is named in the report, and the rest goes on. Status 1 if a command of the project itself failed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# The root of /sys and /proc, for tests.
readonly ROOT=${FIRSTHOST_ROOT:-}
# Bytes of a transfer, for perftest and for ours alike.
readonly SIZES=(65536 1048576)
# Bytes of a transfer over one rail and over two. The largest come first: they are what makes the second rail.
readonly RAIL_SIZES=16M,8M,4M,2M,1M,512K,256K,128K,64K
# The first TCP port of perftest; each pair has its own.
readonly FIRST_PORT=18600

dry_run=0 seconds=2 tool='' suite=$here/gpu-suite out='' failed=0 next_port=$FIRST_PORT

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=1 ;;
      --seconds) seconds=${2:-} && shift ;;
      --tool) tool=${2:-} && shift ;;
      --gpu-suite) suite=${2:-} && shift ;;
      --out) out=${2:-} && shift ;;
      *) usage ;;
    esac
    shift || usage
  done
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || usage
  out=${out:-firsthost-$(uname -n).md}
  [ -n "$tool" ] || tool=$here/flagcx-p2p
  [ -x "$tool" ] || tool=$(command -v flagcx-p2p || echo "$tool")
}

# --- the report ---------------------------------------------------------------------------------------------------

say() {
  echo "$*"
  [ $dry_run = 1 ] || echo "$*" >>"$out"
}

section() {
  say ''
  say "## $1"
  say ''
}

# run LIMIT COMMAND...: runs it for at most LIMIT seconds; command, output and status are in the report. Answers its status.
run() {
  local limit=$1 status=0
  shift
  if [ $dry_run = 1 ]; then
    echo "would run: $*"
    return 0
  fi
  {
    echo '```text'
    echo "$ $*"
    timeout --kill-after=5 "$limit" "$@" 2>&1 </dev/null || status=$?
    [ $status = 0 ] || echo "status $status"
    echo '```'
  } >"$scratch/output"
  tee -a "$out" <"$scratch/output"
  return $status
}

# ours LIMIT COMMAND...: a command of the project itself, of which a failure is a finding.
ours() {
  run "$@" || failed=1
}

# theirs LIMIT COMMAND...: one of the system, where it is installed.
theirs() {
  local command=$2
  if [ $dry_run = 0 ] && ! command -v "$command" >/dev/null; then
    say "not run: $command is not installed"
    return 0
  fi
  run "$@" || true
}

# --- what there is ------------------------------------------------------------------------------------------------

# Active ports, as NAME:PORT, one a line.
ports() {
  local state port
  for state in "$ROOT"/sys/class/infiniband/*/ports/*/state; do
    [ -e "$state" ] || continue
    port=${state%/state}
    if grep -q ACTIVE "$state"; then
      echo "$(basename "${port%/ports/*}"):$(basename "$port")"
    fi
  done | sort -V
}

# Bus ids of the GPUs, in the order of their numbers (CUDA_DEVICE_ORDER=PCI_BUS_ID).
gpus() {
  local gpu
  for gpu in "$ROOT"/proc/driver/nvidia/gpus/*; do
    [ ! -e "$gpu" ] || basename "$gpu"
  done | sort
}

the_host() {
  section 'Host'
  theirs 10 uname -a
  theirs 10 cat /etc/os-release
  theirs 10 lscpu
  theirs 10 bash -c 'ulimit -l; cat /proc/meminfo | head -3; cat /proc/cmdline'
  theirs 10 bash -c 'lsmod | grep -E "ib_|mlx|irdma|bnxt|efa|hns|rxe|siw|nvidia|peermem|amdgpu"'
  theirs 10 bash -c 'cat /sys/module/*/version 2>/dev/null | sort | uniq -c; modinfo -F version mlx5_core nvidia 2>/dev/null'
}

the_devices() {
  section 'Devices'
  theirs 20 lspci -tv
  theirs 20 ibv_devinfo -v
  theirs 10 rdma link show
  theirs 10 ip -br address
  theirs 20 nvidia-smi topo -m
  theirs 20 nvidia-smi -q -d MEMORY,PCI
  theirs 10 bash -c 'cd /sys/class/infiniband && grep -H . */fw_ver */hca_type */ports/*/{state,rate,link_layer} */device/{numa_node,max_link_speed,max_link_width,current_link_speed,current_link_width}'
  # shellcheck disable=SC2016 # for the inner shell
  theirs 10 bash -c 'cd /sys/class/infiniband && for port in */ports/*; do grep -H . "$port"/gid_attrs/types/* 2>/dev/null | head -16; done'
}

the_engine() {
  section 'What the engine finds'
  ours 60 "$tool" doctor
  ours 60 env FLAGCX_P2P_FABRIC=verbs "$tool" doctor --json
  ours 20 "$tool" config
}

# --- measurements -------------------------------------------------------------------------------------------------

is_listening() {
  grep -qi ":$(printf %04X "$1") 0*:0000 0A" /proc/net/tcp /proc/net/tcp6
}

# perftest NAME:PORT BYTES [OPTION...]: ib_write_bw between two processes of this host, over one port.
perftest() {
  local device=${1%:*} port=${1#*:} bytes=$2 tcp=$next_port server status=0 options
  shift 2
  next_port=$((next_port + 1))
  options=(-d "$device" -i "$port" -p "$tcp" -s "$bytes" -D "$seconds" -F --report_gbits "$@")
  if [ $dry_run = 1 ]; then
    run 0 ib_write_bw "${options[@]}"
    return
  fi
  if ! command -v ib_write_bw >/dev/null; then
    say 'not run: ib_write_bw is not installed (package perftest)'
    return
  fi
  timeout $((seconds + 30)) ib_write_bw "${options[@]}" >"$scratch/server" 2>&1 &
  server=$!
  for _ in {1..100}; do
    ! is_listening "$tcp" || break
    kill -0 $server 2>/dev/null || break
    sleep 0.1
  done
  run $((seconds + 20)) ib_write_bw "${options[@]}" 127.0.0.1 || status=$?
  [ $status = 0 ] || say "its server: $(tail -n 3 "$scratch/server" | tr '\n' ' ')"
  kill $server 2>/dev/null || true
  wait $server 2>/dev/null || true
}

# Ours with the same sizes, one transfer and 64 at a time.
bench() {
  local cases
  cases=$(printf '1x%s,' "${SIZES[@]}")
  for depth in 1 64; do
    ours $((40 * seconds + 60)) env FLAGCX_P2P_FABRIC=verbs "FLAGCX_IB_HCA==$1" "$tool" bench local --path verbs \
      --cases "${cases%,}" --depth "$depth" --seconds "$seconds"
  done
}

each_port() {
  local port bytes
  for port in "$@"; do
    section "Port $port, host memory"
    for bytes in "${SIZES[@]}"; do
      perftest "$port" "$bytes"
    done
    bench "$port"
  done
}

# Of these ports the first two of the same link layer and rate, as NAME:PORT,NAME:PORT; nothing where there are none.
two_alike() {
  local port kind
  local -A first=()
  for port in "$@"; do
    kind="kind $(cat "$ROOT/sys/class/infiniband/${port%:*}/ports/${port#*:}"/{link_layer,rate} 2>/dev/null || true)"
    if [ -n "${first[$kind]:-}" ]; then
      echo "${first[$kind]},$port"
      return
    fi
    first[$kind]=$port
  done
}

# The same transfers, one at a time, over one rail and over two, which may be as short as 4 KiB: from which size the second one pays.
one_rail_beside_two() {
  local pair rails
  section 'One rail beside two'
  pair=$(two_alike "$@")
  if [ -z "$pair" ]; then
    say 'not run: there are no two active ports of the same link layer and rate'
    return
  fi
  for rails in 1 2; do
    ours $((80 * seconds + 60)) env FLAGCX_P2P_FABRIC=verbs "FLAGCX_IB_HCA==$pair" FLAGCX_P2P_RAILS=$rails \
      FLAGCX_P2P_RAIL_MIN_BYTES=4096 FLAGCX_DEBUG=INFO "$tool" bench local --path verbs --sizes $RAIL_SIZES \
      --seconds "$seconds" --no-limits --csv "$scratch/rails-$rails.csv"
  done
  if [ $dry_run = 1 ]; then
    return
  elif ! [ -s "$scratch/rails-1.csv" ] || ! [ -s "$scratch/rails-2.csv" ]; then
    say 'not compared: one of the two has no rows'
  elif ! grep -q 'rail 1 is added' "$scratch/output"; then
    say "not compared: no second rail was made over $pair; the lines above say why"
  else
    say "$(compared "$scratch/rails-1.csv" "$scratch/rails-2.csv")"
  fi
}

# compared ONE.csv TWO.csv: a table, and for each operation the size from which on two rails are faster by 5 %.
compared() {
  awk -F, '
    FNR == 1 { file++; for (i = 1; i <= NF; i++) column[$i] = i; next }
    { row = $column["operation"] " | " $column["size"]; rate = $column["gigabytes_per_second"] }
    file == 1 { one[row] = rate; next }
    FNR == 2 { print "| operation | bytes | one rail, GB/s | two rails, GB/s | two to one |"; print "|---|---|---|---|---|" }
    one[row] > 0 {
      printf "| %s | %.2f | %.2f | %.2f |\n", row, one[row], rate, rate / one[row]
      operation = $column["operation"]
      if (!(operation in from)) from[operation] = 0
      if (rate < 1.05 * one[row]) missed[operation] = 1
      if (!missed[operation]) from[operation] = $column["size"]
    }
    END {
      print ""
      for (operation in from)
        print operation ": two rails are faster by 5 % " (from[operation] ? "from " from[operation] " bytes on" : "at no size")
      print "The default of FLAGCX_P2P_RAIL_MIN_BYTES is 524288 bytes."
    }' "$@"
}

has_suite() {
  [ $dry_run = 1 ] || [ -x "$suite/run.sh" ]
}

# pair NUMBER BUS_ID NAME:PORT
pair() {
  local bytes
  section "GPU $1 ($2) and port $3"
  for bytes in "${SIZES[@]}"; do
    perftest "$3" "$bytes" "--use_cuda=$1"
    perftest "$3" "$bytes" "--use_cuda=$1" --use_cuda_dmabuf
  done
  if has_suite; then
    ours 180 env "CUDA_VISIBLE_DEVICES=$1" "GPU_SUITE_NIC=$3" "$suite/run.sh"
  else
    say "not run: there is no $suite/run.sh, which ./x gpu pack makes"
  fi
}

each_pair() {
  local port gpu number=0
  export CUDA_DEVICE_ORDER=PCI_BUS_ID
  while read -r gpu; do
    for port in "$@"; do
      pair $number "$gpu" "$port"
    done
    number=$((number + 1))
  done < <(gpus)
  [ $number -gt 0 ] || say 'not run: the pairs of GPU and port: no NVIDIA GPU (/proc/driver/nvidia/gpus)'
}

main() {
  local found
  parse "$@"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  [ $dry_run = 1 ] || : >"$out"
  say "# $(uname -n), $(date -u '+%Y-%m-%d %H:%M') UTC"
  the_host
  the_devices
  the_engine
  mapfile -t found < <(ports)
  if [ ${#found[@]} = 0 ]; then
    section 'Measurements'
    say 'not run: there is no active RDMA port (/sys/class/infiniband)'
  else
    each_port "${found[@]}"
    one_rail_beside_two "${found[@]}"
    each_pair "${found[@]}"
  fi
  say ''
  if [ $dry_run = 1 ]; then
    echo 'nothing was run'
    return 0
  fi
  say "$([ $failed = 0 ] && echo 'No command of the project failed.' || echo 'A command of the project failed: see status above.')"
  echo "the report: $out"
  return $failed
}

main "$@"
