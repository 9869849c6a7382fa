# How cargo is called, by the build and by the tests alike, so that both share one set of compiled crates:
# FLAGCX_P2P_CARGO_ENVIRONMENT, FLAGCX_P2P_CARGO_OPTIONS, FLAGCX_P2P_CARGO_DIR and, in it, FLAGCX_P2P_CARGO_TARGET_ROOT and
# FLAGCX_P2P_CARGO_OUTPUT_DIR.

set(_profile $<IF:$<CONFIG:Debug>,dev,release>)
if(FLAGCX_P2P_CARGO_PROFILE)
  set(_profile ${FLAGCX_P2P_CARGO_PROFILE})
endif()
set(FLAGCX_P2P_CARGO_OPTIONS --profile ${_profile} --locked)
if(FLAGCX_P2P_OFFLINE)
  list(APPEND FLAGCX_P2P_CARGO_OPTIONS --offline)
endif()
# The crates' features, all of which are on by default.
if(NOT (FLAGCX_P2P_VERBS AND FLAGCX_P2P_METRICS_ENDPOINT))
  list(APPEND FLAGCX_P2P_CARGO_OPTIONS --no-default-features)
  if(FLAGCX_P2P_VERBS)
    list(APPEND FLAGCX_P2P_CARGO_OPTIONS --features verbs)
  endif()
  if(FLAGCX_P2P_METRICS_ENDPOINT)
    list(APPEND FLAGCX_P2P_CARGO_OPTIONS --features metrics-endpoint)
  endif()
endif()

set(FLAGCX_P2P_CARGO_DIR ${PROJECT_BINARY_DIR}/cargo)
if(FLAGCX_P2P_CARGO_TARGET_DIR)
  set(FLAGCX_P2P_CARGO_DIR ${FLAGCX_P2P_CARGO_TARGET_DIR})
endif()
set(FLAGCX_P2P_CARGO_ENVIRONMENT CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR})
# What is compiled for the machine of the target, and the headers that cxx writes: in a folder of its own where there is one. cxx
# would write to CARGO_TARGET_DIR itself, if that is set: two machines' builds would write the same files.
set(FLAGCX_P2P_CARGO_TARGET_ROOT ${FLAGCX_P2P_CARGO_DIR})
if(FLAGCX_P2P_CARGO_TARGET)
  set(FLAGCX_P2P_CARGO_TARGET_ROOT ${FLAGCX_P2P_CARGO_DIR}/${FLAGCX_P2P_CARGO_TARGET})
  list(APPEND FLAGCX_P2P_CARGO_OPTIONS --target ${FLAGCX_P2P_CARGO_TARGET})
  string(REPLACE "-" "_" _target ${FLAGCX_P2P_CARGO_TARGET})
  string(TOUPPER ${_target} _upper)
  set(FLAGCX_P2P_CARGO_ENVIRONMENT --unset=CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}
    CXX_${_target}=${CMAKE_CXX_COMPILER} AR_${_target}=${CMAKE_AR} CARGO_TARGET_${_upper}_LINKER=${CMAKE_CXX_COMPILER})
endif()
set(FLAGCX_P2P_CARGO_OUTPUT_DIR
  ${FLAGCX_P2P_CARGO_TARGET_ROOT}/$<IF:$<STREQUAL:${_profile},dev>,debug,${_profile}>)

# The C++ that cxx generates must come from the compiler that builds the facade. Cargo's default is `c++`; where that
# is that one, CXX is unset, for cargo builds again whatever asked for it when it comes and goes: a shell has none, and
# CMake sets it for what `ctest --build-and-test` starts.
find_program(_default_cxx NAMES c++ NO_CACHE)
file(REAL_PATH "${_default_cxx}" _default_cxx)
file(REAL_PATH "${CMAKE_CXX_COMPILER}" _cxx)
if(_cxx STREQUAL _default_cxx OR FLAGCX_P2P_CARGO_TARGET)
  list(PREPEND FLAGCX_P2P_CARGO_ENVIRONMENT --unset=CXX)
else()
  list(APPEND FLAGCX_P2P_CARGO_ENVIRONMENT CXX=${CMAKE_CXX_COMPILER})
endif()
