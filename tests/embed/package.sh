#!/usr/bin/env bash
# package.sh SOURCE WORK CMAKE_OPTIONS...: packs library and tool by cpack, looks at what is in the .deb, unpacks it and the archive into
# folders, and there compiles and runs a program with pkg-config, one with CMake, and the tool.
set -euo pipefail
source=$1 work=$2
shift 2
rm -rf "$work/deb" "$work/archive" "$work/packages"
cmake -S "$source" -B "$work/build" -G Ninja "$@" -DCMAKE_INSTALL_PREFIX=/usr -DBUILD_SHARED_LIBS=ON -DFLAGCX_P2P_TOOL=ON \
  -DFLAGCX_P2P_BUILD_TESTS=OFF >/dev/null
cmake --build "$work/build"
python3 -B "$source/python/build_backend/third_party.py" "The package" "$source/bridge/Cargo.toml" "$source/rust/cli/Cargo.toml" \
  >"$work/build/THIRD-PARTY-LICENSES.txt"
generators=TGZ
if command -v dpkg-deb >/dev/null; then
  generators="TGZ;DEB"
else
  echo "not run: the .deb: dpkg-deb is missing (package dpkg)"
fi
(cd "$work/build" && cpack -G "$generators" -B "$work/packages" >/dev/null)

fail() {
  echo "$*"
  exit 1
}

# try_out ROOT: what is installed under ROOT works from there.
try_out() {
  local root=$1 library pc
  pc=$(find "$root" -name flagcx_p2p.pc)
  library=$(find "$root" -name 'libflagcx_p2p.so.?')
  [ -n "$pc" ] || fail "$root: no pkg-config file"
  [ -n "$library" ] || fail "$root: no library with the name that programs load"
  readelf -d "$library" | grep -q "SONAME.*\[$(basename "$library")\]" || fail "$library has another SONAME"
  # shellcheck disable=SC2046 # options, one word each
  c++ -std=c++11 "$source/tests/embed/embedded.cc" -o "$root/by_pkg_config" \
    $(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs flagcx_p2p)
  LD_LIBRARY_PATH=$(dirname "$library") "$root/by_pkg_config"
  cmake -S "$source/tests/embed/cmake_installed" -B "$root/by_cmake" -G Ninja \
    -Dflagcx_p2p_DIR="$(dirname "$(find "$root" -name flagcx_p2p-config.cmake)")" >/dev/null
  cmake --build "$root/by_cmake" >/dev/null
  "$root/by_cmake/embedded"
  "$(find "$root" -path '*/bin/flagcx-p2p')" --version
}

archive=$(echo "$work"/packages/*.tar.gz)
mkdir -p "$work/archive"
tar -C "$work/archive" -xzf "$archive"
try_out "$work/archive"

[ "$generators" != TGZ ] || exit 0
deb=$(echo "$work"/packages/*.deb)
listed=$(dpkg-deb -c "$deb" | awk '{ print $6 }')
for path in bin/flagcx-p2p include/flagcx_p2p.h include/flagcx_p2p_ext.h include/flagcx_p2p_rails.h pkgconfig/flagcx_p2p.pc cmake/flagcx_p2p/flagcx_p2p-config.cmake \
  man/man1/flagcx-p2p.1 man/man1/flagcx-p2p-serve.1 bash-completion/completions/flagcx-p2p site-functions/_flagcx-p2p \
  vendor_completions.d/flagcx-p2p.fish doc/flagcx-p2p/copyright doc/flagcx-p2p/THIRD-PARTY-LICENSES.txt libflagcx_p2p.so; do
  grep -q "^\./usr/.*$path\$" <<<"$listed" || fail "$deb has no $path: $listed"
done
! grep -v '^\./usr/' <<<"$listed" || fail "$deb has something outside /usr"
[ "$(dpkg-deb -f "$deb" Package)" = flagcx-p2p ] || fail "$deb is another package"
if command -v dpkg-shlibdeps >/dev/null; then
  dpkg-deb -f "$deb" Depends | grep -q libc6 || fail "$deb depends on no libc"
else
  echo "not run: what the package depends on: dpkg-shlibdeps is missing (package dpkg-dev)"
fi
dpkg-deb --ctrl-tarfile "$deb" | tar -xO ./shlibs | grep -q '^libflagcx_p2p 0 ' || fail "$deb tells no other package its SONAME"
dpkg -x "$deb" "$work/deb"
try_out "$work/deb"
echo "packages: $(du -h "$deb" "$archive" | awk '{ print $1, $2 }' | xargs)"
