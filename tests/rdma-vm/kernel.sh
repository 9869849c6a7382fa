# shellcheck shell=bash disable=SC2154 # here, scratch: run.sh
# The guest's kernel and its first root file system. Sourced by run.sh; prepare_kernel sets:
#   kernel    the image to boot       initrd    the initial root       modules   folder that holds lib/modules
# arm64.sh adds the root file system of guests of ARM64.

cache=${RDMA_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flagcx-p2p/rdma-vm}
busybox=$(command -v busybox || true)

prepare_kernel() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9 # of two first runs at once, one fetches
  local package
  [ "$architecture" = amd64 ] || prepare_arm64
  package=$(kernel_package)
  modules=$cache/$package
  [ -e "$modules/complete" ] || fetch_kernel "$package"
  kernel=$modules/vmlinux
  [ -e "$kernel" ] || kernel=$(find "$modules/boot" -name 'vmlinuz-*')
  initrd=$modules/initrd.cpio
  if [ ! -e "$initrd" ] || [ "$here/initrd_init.sh" -nt "$initrd" ] || [ "$here/kernel.sh" -nt "$initrd" ]; then
    build_initrd
  fi
  exec 9>&-
}

# The package behind linux-image-amd64 or another one, remembered, so that later runs need no package lists.
kernel_package() {
  local known=$cache/package
  [ "$image" = linux-image-amd64 ] || known+=-$image
  [ -s "$known" ] || guest_apt apt-cache depends "$image" |
    sed -n 's/^ *Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1 >"$known"
  [ -s "$known" ] || die "apt-cache does not know $image: run apt-get update, or delete $cache/apt-$kernel_release if $image is ARM64's"
  cat "$known"
}

# guest_apt TOOL [ARGS...]: a tool of apt as it finds the guest's packages.
guest_apt() {
  case $architecture in
    amd64) "$@" ;;
    arm64) arm64_apt "$kernel_release" "$@" ;;
  esac
}

fetch_kernel() {
  local package=$1 folder version
  folder=$(mktemp -d "$cache/fetch.XXXXXX")
  echo "rdma-vm: fetching $package" >&2
  (cd "$folder" && guest_apt apt-get -q -o APT::Sandbox::User=root download "$package" >&2 && dpkg -x ./*.deb . && rm ./*.deb) ||
    die "cannot fetch $package: run apt-get update; delete $cache/package* and $cache/apt-* if the archive has a newer one"
  # Debian 13 has the modules there.
  [ -d "$folder/lib" ] || ln -s usr/lib "$folder/lib"
  version=$(kernel_version "$folder")
  [ -d "$folder/lib/modules/$version/kernel/drivers/infiniband/sw/rxe" ] || die "$package has no rdma_rxe"
  depmod -b "$folder" "$version" 2>/dev/null
  unpack_image "$folder"
  touch "$folder/complete"
  mv -T "$folder" "$modules"
}

kernel_version() {
  ls "$1/lib/modules"
}

# The ELF image inside of vmlinuz: qemu boots it directly, and the guest need not unpack it under emulation.
unpack_image() {
  local image offset
  # That of ARM64 is not packed.
  [ "$architecture" = amd64 ] || return 0
  image=$(find "$1/boot" -name 'vmlinuz-*')
  offset=$(LC_ALL=C grep -aobP '\xfd7zXZ\x00' "$image" | head -n 1 | cut -d: -f1) || return 0
  tail -c "+$((offset + 1))" "$image" | xz -dc --single-stream >"$1/vmlinux" 2>/dev/null || true
  head -c 4 "$1/vmlinux" | grep -q ELF || rm -f "$1/vmlinux"
}

# busybox, the modules that reach the host's root over 9p, and the script that goes there.
build_initrd() {
  local root name order=100
  root=$(mktemp -d "$scratch/initrd.XXXXXX")
  mkdir -p "$root"/{bin,modules,proc,sys,dev,host,writable,root}
  cp "$busybox" "$root/bin/busybox"
  ln -s busybox "$root/bin/sh"
  for name in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
    add_module "$root" "$name"
  done
  install -m 755 "$here/initrd_init.sh" "$root/init"
  (cd "$root" && find . | cpio --quiet -o -H newc) >"$initrd.new"
  mv "$initrd.new" "$initrd"
}

# Adds a module behind those it depends on; the number in front of the name keeps the order.
add_module() {
  local root=$1 verb file plain
  while read -r verb file _; do
    plain=${file##*/}
    plain=${plain%.xz}
    if [ "$verb" != insmod ] || compgen -G "$root/modules/*-$plain" >/dev/null; then
      continue
    fi
    order=$((order + 1))
    case $file in
      *.xz) xz -dc "$file" >"$root/modules/$order-$plain" ;;
      *) cp "$file" "$root/modules/$order-$plain" ;;
    esac
  done < <(modprobe -d "$modules" -S "$(kernel_version "$modules")" --show-depends "$2")
}
