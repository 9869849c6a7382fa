# dlopen/ctypes.cc: a program that loads the shared library of embed.install_shared and looks up its C functions by name.

add_executable(dlopen_ctypes dlopen/ctypes.cc)
target_link_libraries(dlopen_ctypes PRIVATE GTest::gtest_main ${CMAKE_DL_LIBS})
target_compile_features(dlopen_ctypes PRIVATE cxx_std_17)
target_compile_options(dlopen_ctypes PRIVATE -Wall -Wextra -Wvla)
add_test(NAME dlopen.ctypes COMMAND dlopen_ctypes)
set_tests_properties(dlopen.ctypes PROPERTIES LABELS "gtest;quick" TIMEOUT 120 PROCESSORS 2 FIXTURES_REQUIRED shared
  ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1;FLAGCX_P2P_LIBRARY=${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix/lib/libflagcx_p2p.so")

# dlopen/facade.py: the same functions from Python's ctypes, as FlagCX's own programs call them.
find_program(FLAGCX_P2P_PYTHON python3 HINTS /usr/bin)
add_test(NAME dlopen.python COMMAND ${FLAGCX_P2P_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/dlopen/facade.py)
set_tests_properties(dlopen.python PROPERTIES LABELS "python;quick" TIMEOUT 120 FIXTURES_REQUIRED shared
  ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1;FLAGCX_P2P_LIBRARY=${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix/lib/libflagcx_p2p.so")
