# shellcheck shell=bash disable=SC2154,SC2034 # what run.sh and kernel.sh set, and what they read
# Guests of ARM64: a root file system of Debian's packages for that machine. They are unpacked and never installed, and this machine's
# own list of packages knows nothing of them. Sourced by run.sh; prepare_arm64 sets:
#   guest_root   the root file system       busybox   the guest's own

readonly arm64_packages=(bash busybox-static coreutils grep ibverbs-providers ibverbs-utils iproute2 kmod libc-bin librdmacm1 libstdc++6 mount
  rdma-core sed util-linux)

prepare_arm64() {
  guest_root=$cache/arm64-root
  [ -e "$guest_root/complete" ] || fetch_root
  busybox=$guest_root/usr/bin/busybox
}

fetch_root() {
  local folder package
  folder=$(mktemp -d "$cache/fetch.XXXXXX")
  echo "rdma-vm: fetching a root file system of ARM64" >&2
  arm64_apt "$release" apt-get -q -y --no-install-recommends --download-only install "${arm64_packages[@]}" >&2 ||
    die "cannot fetch ${arm64_packages[*]} of ARM64 from $mirror; delete $cache/apt-$release if the archive has newer ones"
  mkdir -p "$folder"/usr/{bin,sbin,lib}
  ln -s usr/bin usr/sbin usr/lib "$folder"
  for package in "$cache/apt-$release"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$folder"
  done
  mkdir -p "$folder"/{dev,proc,sys,run,tmp,root,etc}
  echo 'root:x:0:0:root:/root:/bin/bash' >"$folder/etc/passwd"
  echo '127.0.0.1 localhost' >"$folder/etc/hosts"
  rm -rf "$cache/apt-$release/cache/archives"
  touch "$folder/complete"
  mv -T "$folder" "$guest_root"
}

# arm64_apt RELEASE TOOL [ARGS...]: a tool of apt with the packages of ARM64 of that release, in a folder of its own.
arm64_apt() {
  local folder=$cache/apt-$1 tool=$2 options
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Acquire::Languages=none -o APT::Sandbox::User=root
    -o Dir::State="$folder/state" -o Dir::State::status="$folder/status" -o Dir::Cache="$folder/cache"
    -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null)
  if [ ! -e "$folder/updated" ]; then
    mkdir -p "$folder/state/lists/partial" "$folder/cache/archives/partial"
    : >"$folder/status"
    echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$folder/sources.list"
    apt-get "${options[@]}" -q update >&2 || die "cannot fetch the list of packages of $1 for ARM64 from $mirror"
    touch "$folder/updated"
  fi
  "$tool" "${options[@]}" "${@:3}"
}

mirror=${RDMA_VM_MIRROR:-http://deb.debian.org/debian}
# shellcheck source=/dev/null
# That of this machine, of which the cross compiler's libraries are.
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
# Of the kernel: the first one that has it with pages of 16 KiB is 13.
kernel_release=$release
