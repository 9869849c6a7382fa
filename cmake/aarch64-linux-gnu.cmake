# Builds for Linux on ARM64 with Debian's cross compiler (g++-aarch64-linux-gnu) and rustup's target:
#   rustup target add aarch64-unknown-linux-gnu
#   cmake -S . -B build/arm64 --toolchain cmake/aarch64-linux-gnu.cmake -DFLAGCX_P2P_BUILD_TESTS=OFF
# The verbs provider asks pkg-config for libibverbs and librdmacm of ARM64 and reads their headers by the C library's of ARM64.
# With the arm64 packages of both installed:
#   export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig
#   export BINDGEN_EXTRA_CLANG_ARGS=-I/usr/aarch64-linux-gnu/include

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(FLAGCX_P2P_LD aarch64-linux-gnu-ld.bfd CACHE FILEPATH "GNU ld for ARM64")
set(FLAGCX_P2P_OBJCOPY aarch64-linux-gnu-objcopy CACHE FILEPATH "objcopy for ARM64")
set(FLAGCX_P2P_CARGO_TARGET aarch64-unknown-linux-gnu CACHE STRING "Rust's name of the machine to build for")
# Runs the programs of the build, also those that CMake starts itself.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
