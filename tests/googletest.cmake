# GTest::gtest_main: an installed googletest, else Debian's sources, else (only when asked) a pinned download.

option(FLAGCX_P2P_FETCH_GOOGLETEST "Download googletest when the machine has none" OFF)
set(_googletest_sources /usr/src/googletest)

find_package(GTest QUIET)
if(NOT TARGET GTest::gtest_main)
  set(INSTALL_GTEST OFF)
  if(EXISTS ${_googletest_sources}/CMakeLists.txt)
    add_subdirectory(${_googletest_sources} ${CMAKE_CURRENT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  elseif(FLAGCX_P2P_FETCH_GOOGLETEST)
    include(${PROJECT_SOURCE_DIR}/third_party/googletest.cmake)
  else()
    message(FATAL_ERROR "flagcx-p2p: googletest not found. Install the package googletest, or set "
      "-DFLAGCX_P2P_FETCH_GOOGLETEST=ON to download it, or -DFLAGCX_P2P_BUILD_TESTS=OFF.")
  endif()
endif()
