#!/bin/sh
# Process 1 of the guest at first: reaches the host's root file system and goes on there with guest_init.sh.
busybox=/bin/busybox

die() {
  echo "rdma-vm: the guest has no $1"
  $busybox poweroff -f
}

$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
  $busybox insmod "$module"
done

options=trans=virtio,version=9p2000.L,msize=512000
$busybox mount -t 9p -o ro,cache=loose,$options root /host || die "root over 9p"
$busybox mount -t tmpfs -o mode=755 tmpfs /writable
$busybox mkdir /writable/upper /writable/work
$busybox mount -t overlay -o lowerdir=/host,upperdir=/writable/upper,workdir=/writable/work overlay /root ||
  die "overlay"
for folder in dev proc sys; do
  $busybox mount --move /$folder /root/$folder
done
$busybox mkdir -p /root/run /root/tmp /root/.control
$busybox mount -t tmpfs tmpfs /root/run
$busybox mount -t 9p -o rw,cache=none,$options control /root/.control || die "control folder"
exec $busybox chroot /root /bin/bash /.control/guest_init.sh
