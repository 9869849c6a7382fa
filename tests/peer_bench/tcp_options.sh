#!/bin/sh
# tcp_options.sh: what options of TCP sockets are worth between two network namespaces with a veth pair of MTU 1500. Needs root.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
cc -O2 -Wall -Wextra -o "$work/tcp_options" "$here/drivers/tcp_options.c"
# shellcheck disable=SC2016 # for the inner shell
exec unshare --net --pid --fork --kill-child --mount-proc sh -eu -c '
    program=$1/tcp_options
    trap "rm -rf \"$1\"" EXIT
    mkfifo "$1/ready"
    unshare --net sh -c "echo \$\$ && exec sleep infinity" >"$1/pid" &
    other=$!
    while [ ! -s "$1/pid" ]; do sleep 0.05; done
    ip link add here type veth peer name there netns "/proc/$other/ns/net"
    ip link set here mtu 1500 up
    ip addr add 192.0.2.1/24 dev here
    nsenter --net="/proc/$other/ns/net" sh -c "ip link set there mtu 1500 up && ip addr add 192.0.2.2/24 dev there"
    nsenter --net="/proc/$other/ns/net" "$program" serve 4000 >"$1/ready" &
    read -r _ <"$1/ready"
    "$program" measure 192.0.2.2 4000
' sh "$work"
