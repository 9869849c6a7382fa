#!/bin/bash
# Process 1 of the guest in the host's root: sets up devices, runs the command, leaves its status, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
readonly control=/.control
trap 'busybox poweroff -f' EXIT

set_up_files() {
  local modules tag folder
  mkdir -p /dev/pts /dev/shm
  mount -t devpts devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  ln -sfn /proc/self/fd /dev/fd
  ln -sfn fd/0 /dev/stdin
  ln -sfn fd/1 /dev/stdout
  ln -sfn fd/2 /dev/stderr
  while read -r tag folder; do
    mkdir -p "$folder"
    mount -t 9p -o rw,cache=none,trans=virtio,version=9p2000.L,msize=512000 "$tag" "$folder" || die "cannot share $folder"
  done < <(cat $control/shares 2>/dev/null)
  read -r modules <$control/modules
  mkdir -p "/lib/modules/$(uname -r)"
  mount --bind "$modules/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)" || die "cannot reach the kernel's modules"
}

# A soft-RoCE device on a network interface; where there are two nodes, one on each of their links.
set_up_devices() {
  local node loss interface link
  read -r node <$control/node
  read -r loss <$control/loss
  ip link set lo up
  modprobe -a ib_uverbs rdma_ucm rdma_rxe || die "cannot load rdma_rxe"
  if [ -z "$node" ]; then
    modprobe dummy numdummies=0
    # Room for a path MTU of 4096 and headers.
    ip link add dummy0 mtu 4200 type dummy
    set_up_device dummy0 10.77.0.1 rxe0
    return
  fi
  export RDMA_VM_NODE=$node RDMA_VM_PEER=10.78.0.$((3 - node))
  modprobe virtio_net
  for link in 1 2; do
    interface=$(grep -l "^52:54:00:00:0$link:0$node" /sys/class/net/*/address | cut -d / -f 5)
    set_up_device "$interface" "10.7$((7 + link)).0.$node" rxe$((link - 1))
    [ -z "$loss" ] || { modprobe sch_netem && tc qdisc add dev "$interface" root netem loss "$loss"; } ||
      die "cannot lose $loss of the packets"
  done
}

# set_up_device INTERFACE ADDRESS DEVICE. IPv4-mapped GIDs come from the interface's address.
set_up_device() {
  ip address add "$2/24" dev "$1"
  ip link set "$1" up
  rdma link add "$3" type rxe netdev "$1" || die "cannot make an rxe device on $1"
  grep -q ACTIVE "/sys/class/infiniband/$3/ports/1/state" || die "the port of $3 is not active"
}

die() {
  echo "rdma-vm: $*" >/dev/console
  exit 1
}

run_command() {
  local folder status port cat_process
  read -r folder <$control/folder
  mkfifo /run/output
  port=$(echo /dev/vport*p1)
  cat /run/output >"$port" &
  cat_process=$!
  touch $control/started
  (
    set +u
    # shellcheck disable=SC1091 # written by the host
    . $control/environment
    unset TMPDIR
    export FLAGCX_P2P_FABRIC=verbs FLAGCX_P2P_TEST_RXE=1
    cd "$folder" 2>/dev/null || cd /
    exec bash $control/command
  ) </dev/null >/run/output 2>&1
  status=$?
  # What the command left running may hold the pipe: give the rest of the output two seconds.
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 $cat_process 2>/dev/null || break
    sleep 0.2
  done
  echo $status >$control/status
  sync
}

busybox hostname rdma-vm
ulimit -l unlimited
ulimit -n 65536
ulimit -c 0
set_up_files
set_up_devices
run_command
