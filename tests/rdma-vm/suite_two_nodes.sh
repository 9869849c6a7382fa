#!/bin/bash
# Two guests, one on either end of two links: a file goes to node 1 and another comes back, while the links lose packets. Then transfers
# go over both links, without that loss, and one link goes down at either end and comes back, also the one of the control channel.
# run.sh --suite runs it in both.
#
#   suite_two_nodes.sh RUST_PROGRAMS      as suite.sh
set -eu

readonly programs=$1 port=7733 ready_port=7734
# shellcheck source=tests/rdma-vm/suite_steps.sh
. "$(dirname "${BASH_SOURCE[0]}")/suite_steps.sh"
flagcx_p2p=$(path_of flagcx-p2p)
readonly flagcx_p2p
# The link may lose packets: a lost last one costs a timeout, so keep that short (4.096 us * 2^15 = 0.13 s).
export FLAGCX_IB_TIMEOUT=15

# Rails between the nodes: the test has one end in each.
over_two_links() {
  local interface
  for interface in /sys/class/net/e*; do
    tc qdisc del dev "${interface##*/}" root 2>/dev/null || true
    # Fewer packets for the same bytes: room for a path MTU of 4096.
    ip link set "${interface##*/}" mtu 4200
  done
  # shellcheck disable=SC2016 # for the inner shell
  step rails_rxe 150 bash -c 'rust_suite "$1" between_hosts' bash "$(path_of rails_rxe)"
  [ ${#failed[@]} = 0 ]
}

# Serves a folder until the other node reports that it is done.
serve() {
  mkdir -p /run/files
  head -c 3000000 /dev/urandom >/run/files/here
  timeout 200 "$flagcx_p2p" serve --listen "10.78.0.$RDMA_VM_NODE" --port $port /run/files &
  local server=$! line
  line=$(busybox nc -l -p $ready_port)
  kill $server
  wait $server || true
  [ "$line" = "$(sha256sum </run/files/there) $(sha256sum </run/files/here)" ] || {
    echo "the files differ: $line"
    return 1
  }
  echo "both files arrived whole"
}

use() {
  head -c 3000000 /dev/urandom >/run/there
  wait_for_port
  timeout 100 "$flagcx_p2p" put /run/there "$RDMA_VM_PEER:$port"
  (cd /run && timeout 100 "$flagcx_p2p" get here "$RDMA_VM_PEER:$port")
  echo "$(sha256sum </run/there) $(sha256sum </run/here)" >"/dev/tcp/$RDMA_VM_PEER/$ready_port"
  ibv_devinfo -d rxe0 | grep -E 'active_mtu|state'
}

wait_for_port() {
  local tries=0
  until (: >"/dev/tcp/$RDMA_VM_PEER/$port") 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "cannot connect to $RDMA_VM_PEER:$port: no listener after $tries attempts" && return 1; }
    sleep 0.3
  done
}

case $RDMA_VM_NODE in
  1) serve ;;
  2) use ;;
esac
over_two_links
