# shellcheck shell=bash disable=SC2154,SC2034 # what run.sh sets, and what it reads
# Booting guests. Sourced by run.sh.
#
# A guest and the host share a control folder of these files:
#   command environment folder modules shares node loss   from the host
#   started status                                        from the guest: the command runs; its exit status
#   output console qemu.log process link1 link2           of the host: pipe, logs, qemu's process id, the links' sockets

# Seconds from qemu's start to the command: 15 are usual without KVM, and 40 for ARM64.
boot_limit=90
# Set when a guest did not get as far as the command; run.sh then tries once more.
boot_failed=0

# new_control COMMAND [NODE]: prints the folder.
new_control() {
  local control folder index=0
  control=$(mktemp -d "$scratch/guest.XXXXXX")
  echo "$1" >"$control/command"
  echo "${2:-}" >"$control/node"
  echo "$loss" >"$control/loss"
  echo "$modules" >"$control/modules"
  pwd >"$control/folder"
  export -p >"$control/environment"
  for folder in "${shares[@]}"; do
    echo "share$index $folder" >>"$control/shares"
    index=$((index + 1))
  done
  cp "$here/guest_init.sh" "$control/"
  mkfifo "$control/output"
  : >"$control/console"
  echo "$control"
}

# link_options SOCKET server|client: both links between two guests, over SOCKET1 and SOCKET2. The receive ring is longer than the
# default, at which four busy queue pairs lose packets enough to stall. The fifth byte of the address is the link's number, the last one
# the node's.
link_options() {
  local role=on node=01 link
  [ "$2" = server ] || role=off node=02
  for link in 1 2; do
    echo "-netdev stream,id=link$link,server=$role,addr.type=unix,addr.path=$1$link" \
      "-device virtio-net-pci,netdev=link$link,rx_queue_size=1024,mac=52:54:00:00:0$link:$node"
  done
}

# boot CONTROL LABEL [QEMU OPTIONS]: starts a guest; what it prints goes to our output, each line behind LABEL.
boot() {
  local control=$1 label=$2 options=() index=0 folder machine console
  for folder in "${shares[@]}"; do
    options+=(-fsdev "local,id=share$index,path=$folder,security_model=passthrough,multidevs=remap"
      -device "virtio-9p-pci,fsdev=share$index,mount_tag=share$index")
    index=$((index + 1))
  done
  # shellcheck disable=SC2206 # the words of the options
  options+=(${3:-})
  case $architecture in
    # "max" without the features that the emulation is slow at.
    amd64) machine=(qemu-system-x86_64 -M "q35,usb=off" -cpu "max,-pclmulqdq,-erms,-fsrm") console=ttyS0 ;;
    # The core of Graviton 2 and Altra.
    arm64) machine=(qemu-system-aarch64 -M "virt,usb=off" -cpu neoverse-n1) console=ttyAMA0 ;;
  esac
  sed -u "s/^/${label:+[$label] }/" <"$control/output" &
  echo $! >"$control/printer"
  timeout -k 5 "$limit" "${machine[@]}" -accel tcg,thread=multi,tb-size=512 \
    -smp "$processors" -m "$memory" -display none -nodefaults -no-reboot -no-user-config \
    -kernel "$kernel" -initrd "$initrd" \
    -append "console=$console panic=-1 oops=panic nokaslr mitigations=off audit=0 random.trust_cpu=on tsc=reliable no_timer_check" \
    -chardev "file,id=console,path=$control/console" -serial chardev:console \
    -device virtio-serial-pci -chardev "file,id=output,path=$control/output,append=on" \
    -device virtserialport,chardev=output,name=output \
    -fsdev "local,id=root,path=$guest_root,readonly=on,security_model=none,multidevs=remap" \
    -device virtio-9p-pci,fsdev=root,mount_tag=root \
    -fsdev "local,id=control,path=$control,security_model=none" \
    -device virtio-9p-pci,fsdev=control,mount_tag=control \
    -object rng-random,filename=/dev/urandom,id=random -device virtio-rng-pci,rng=random \
    "${options[@]}" </dev/null >"$control/qemu.log" 2>&1 &
  echo $! >"$control/process"
}

# wait_for CONTROL: the command's status, 124, or 125 with the guest's last output.
wait_for() {
  local control=$1 qemu=0
  wait_for_start "$control" || return 125
  wait "$(cat "$control/process")" || qemu=$?
  wait "$(cat "$control/printer")" || true
  [ "$verbose" = 0 ] || print_console "$control"
  if [ -s "$control/status" ]; then
    return "$(cat "$control/status")"
  elif [ "$qemu" = 124 ]; then
    echo "rdma-vm: not finished within $limit s" >&2
    return 124
  fi
  echo "rdma-vm: the guest died (qemu ended with $qemu)" >&2
  print_console "$control"
  return 125
}

wait_for_start() {
  local control=$1 process deadline=$((SECONDS + boot_limit))
  process=$(cat "$control/process")
  until [ -e "$control/started" ]; do
    if ! kill -0 "$process" 2>/dev/null; then
      [ ! -e "$control/started" ] || break
      echo "rdma-vm: the guest cannot boot: qemu ended" >&2
    elif [ $SECONDS -ge $deadline ]; then
      echo "rdma-vm: the guest cannot boot: no command after $boot_limit s" >&2
    else
      sleep 0.2
      continue
    fi
    print_console "$control"
    boot_failed=1
    return 1
  done
}

print_console() {
  { cat "$1/qemu.log" && tail -n 60 "$1/console"; } | sed 's/\r$//; s/^/[guest] /' >&2
}

stop_guests() {
  local file
  for file in "$scratch"/guest.*/process "$scratch"/guest.*/printer; do
    [ ! -e "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
  done
  wait
  rm -rf "$scratch"/guest.*
}

clean_up() {
  stop_guests
  rm -rf "$scratch"
}
