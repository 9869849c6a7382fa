# The prerequisites of a build beside a C++ compiler, checked at configure time so that missing ones are named before
# anything is compiled. Sets FLAGCX_P2P_CARGO, FLAGCX_P2P_LD, FLAGCX_P2P_OBJCOPY and FLAGCX_P2P_NATIVE_LIBS.

file(STRINGS ${PROJECT_SOURCE_DIR}/Cargo.toml _rust_minimum REGEX "^rust-version")
string(REGEX MATCH "[0-9.]+" _rust_minimum "${_rust_minimum}")

# Stops unless VARIABLE holds something: `what` is missing, `remedy` says what to do.
function(flagcx_p2p_require variable what remedy)
  if(NOT ${variable})
    message(FATAL_ERROR "flagcx-p2p: ${what} not found. ${remedy}")
  endif()
endfunction()

find_program(FLAGCX_P2P_CARGO cargo HINTS $ENV{CARGO_HOME}/bin $ENV{HOME}/.cargo/bin)
flagcx_p2p_require(FLAGCX_P2P_CARGO "cargo" "Install Rust ${_rust_minimum} or newer (https://rustup.rs).")
execute_process(COMMAND ${FLAGCX_P2P_CARGO} --version WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  OUTPUT_VARIABLE _cargo_version ERROR_VARIABLE _cargo_error RESULT_VARIABLE _cargo_result)
if(NOT _cargo_result EQUAL 0)
  message(FATAL_ERROR "flagcx-p2p: cargo does not run: ${_cargo_error}")
endif()
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" _cargo_version "${_cargo_version}")
if(_cargo_version VERSION_LESS _rust_minimum)
  message(FATAL_ERROR "flagcx-p2p: cargo ${_cargo_version} is too old, ${_rust_minimum} is needed (rustup update).")
endif()

# GNU ld: the one that can resolve section groups in a relocatable link (see cpp/CMakeLists.txt).
find_program(FLAGCX_P2P_LD NAMES ld.bfd ld)
flagcx_p2p_require(FLAGCX_P2P_LD "GNU ld" "Install the package binutils.")
find_program(FLAGCX_P2P_OBJCOPY NAMES objcopy)
flagcx_p2p_require(FLAGCX_P2P_OBJCOPY "objcopy" "Install the package binutils.")

if(FLAGCX_P2P_VERBS)
  set(_off "or build without RDMA devices: -DFLAGCX_P2P_VERBS=OFF.")
  find_program(FLAGCX_P2P_PKG_CONFIG NAMES pkg-config pkgconf)
  flagcx_p2p_require(FLAGCX_P2P_PKG_CONFIG "pkg-config" "Install the package pkg-config, ${_off}")
  find_path(FLAGCX_P2P_VERBS_H infiniband/verbs.h)
  flagcx_p2p_require(FLAGCX_P2P_VERBS_H "infiniband/verbs.h"
    "Install libibverbs-dev (rdma-core-devel on RPM systems), ${_off}")
  find_path(FLAGCX_P2P_RDMA_CMA_H rdma/rdma_cma.h)
  flagcx_p2p_require(FLAGCX_P2P_RDMA_CMA_H "rdma/rdma_cma.h"
    "Install librdmacm-dev (rdma-core-devel on RPM systems), ${_off}")
  file(GLOB _llvm_dirs /usr/lib/llvm*/lib /usr/lib64/llvm*/lib)
  find_library(FLAGCX_P2P_LIBCLANG NAMES clang libclang.so.1 HINTS $ENV{LIBCLANG_PATH} ${_llvm_dirs})
  flagcx_p2p_require(FLAGCX_P2P_LIBCLANG "libclang"
    "Install libclang-dev (clang-devel on RPM systems), set LIBCLANG_PATH, ${_off}")
endif()

# rustup may not be on the PATH: rustc is where cargo is.
get_filename_component(_cargo_folder ${FLAGCX_P2P_CARGO} DIRECTORY)
find_program(FLAGCX_P2P_RUSTC rustc HINTS ${_cargo_folder})
flagcx_p2p_require(FLAGCX_P2P_RUSTC "rustc" "Install Rust ${_rust_minimum} or newer (https://rustup.rs).")

# The native libraries of the Rust standard library, taken from an empty library: the list of the bridge would contain
# libibverbs too, which rdma-sys requests and of which nothing is called.
set(_for "")
if(FLAGCX_P2P_CARGO_TARGET)
  set(_for --target ${FLAGCX_P2P_CARGO_TARGET})
endif()
execute_process(
  COMMAND ${FLAGCX_P2P_RUSTC} ${_for} --crate-type staticlib --print native-static-libs
          -o ${CMAKE_CURRENT_BINARY_DIR}/empty.a -
  INPUT_FILE /dev/null WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  OUTPUT_QUIET ERROR_VARIABLE _native RESULT_VARIABLE _native_result)
if(NOT _native_result EQUAL 0 OR NOT _native MATCHES "native-static-libs: ([^\n]*)")
  message(FATAL_ERROR "flagcx-p2p: cannot determine the native libraries of rustc's standard library: ${_native}")
endif()
string(REGEX REPLACE "-l" "" _native "${CMAKE_MATCH_1}")
separate_arguments(FLAGCX_P2P_NATIVE_LIBS UNIX_COMMAND "${_native}")
