# gtest/test_NAME.cc becomes the program test_NAME and the ctest entry gtest.NAME. Sources without the prefix are
# shared helpers of all of them.

file(GLOB _suites CONFIGURE_DEPENDS gtest/test_*.cc)
file(GLOB _helpers CONFIGURE_DEPENDS gtest/*.cc)
list(REMOVE_ITEM _helpers ${_suites} "")

add_library(gtest_helpers OBJECT ${_helpers})
target_link_libraries(gtest_helpers PUBLIC flagcx_p2p GTest::gtest_main)
target_compile_features(gtest_helpers PUBLIC cxx_std_17)
target_compile_options(gtest_helpers PUBLIC -Wall -Wextra -Wvla)

# Two processors each: engines have threads of their own, and a starved one looks like a slow one.
foreach(_suite IN LISTS _suites)
  get_filename_component(_program ${_suite} NAME_WE)
  string(REGEX REPLACE "^test_" "" _name ${_program})
  add_executable(${_program} ${_suite})
  target_link_libraries(${_program} PRIVATE gtest_helpers)
  set_target_properties(${_program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/gtest)
  add_test(NAME gtest.${_name} COMMAND ${_program})
  set_tests_properties(gtest.${_name} PROPERTIES LABELS gtest TIMEOUT 120 PROCESSORS 2)
endforeach()
