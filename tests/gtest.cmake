# gtest/test_NAME.cc becomes the program test_NAME and the ctest entry gtest.NAME. Sources without the prefix are
# shared helpers of all of them.

file(GLOB _suites CONFIGURE_DEPENDS gtest/test_*.cc)
file(GLOB _helpers CONFIGURE_DEPENDS gtest/*.cc)
list(REMOVE_ITEM _helpers ${_suites} "")

# The objects need headers only, so they are compiled while cargo builds the library. Not optimised, for that would take three
# times as long: the library that they test is, and so are the programs of embed/. googletest's header takes most of the rest,
# and is compiled once.
set(_quickly_compiled -O0 -g1)
add_library(gtest_helpers OBJECT ${_helpers})
target_include_directories(gtest_helpers PUBLIC ${PROJECT_SOURCE_DIR}/cpp/include)
target_link_libraries(gtest_helpers PUBLIC GTest::gtest)
target_compile_features(gtest_helpers PUBLIC cxx_std_17)
target_compile_options(gtest_helpers PUBLIC -Wall -Wextra -Wvla ${_quickly_compiled})
target_precompile_headers(gtest_helpers PRIVATE <gtest/gtest.h>)
foreach(_library gtest gtest_main)
  if(TARGET ${_library})
    target_compile_options(${_library} PRIVATE ${_quickly_compiled})
  endif()
endforeach()

# More of the processors than an entry that waits: engines have threads of their own, and a starved one looks like a slow one.
foreach(_suite IN LISTS _suites)
  get_filename_component(_program ${_suite} NAME_WE)
  string(REGEX REPLACE "^test_" "" _name ${_program})
  add_library(${_program}_object OBJECT ${_suite})
  target_link_libraries(${_program}_object PRIVATE gtest_helpers)
  target_precompile_headers(${_program}_object REUSE_FROM gtest_helpers)
  add_executable(${_program} $<TARGET_OBJECTS:${_program}_object>)
  target_link_libraries(${_program} PRIVATE gtest_helpers flagcx_p2p)
  set_target_properties(${_program} PROPERTIES LINKER_LANGUAGE CXX
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/gtest)
  if(NOT _name STREQUAL net_gdr) # which needs a NIC
    add_test(NAME gtest.${_name} COMMAND ${_program})
    set_tests_properties(gtest.${_name} PROPERTIES LABELS "gtest;quick" TIMEOUT 120 PROCESSORS 2 SKIP_RETURN_CODE 77)
  endif()
endforeach()
# Its structs have their size in the symbol table, as FlagCX's own have in that of libflagcx.so.
set_target_properties(test_flagcx_gpu PROPERTIES ENABLE_EXPORTS ON)
# Libraries that it loads at the same address one after the other: their structs differ in length.
foreach(_bytes 416 640)
  add_library(plugin_${_bytes} MODULE gtest/plugin/adaptor.c)
  target_compile_definitions(plugin_${_bytes} PRIVATE BYTES=${_bytes})
  set_target_properties(plugin_${_bytes} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/gtest)
  add_dependencies(test_flagcx_gpu plugin_${_bytes})
endforeach()
# Not among the quick ones: it waits for time-outs.
set_tests_properties(gtest.names PROPERTIES LABELS gtest)

# Once more in the configuration in which only the caller states that both ends are in one process.
add_test(NAME gtest.gpu_entry_points_tcp COMMAND test_gpu_entry_points --gtest_filter=Ways/*)
set_tests_properties(gtest.gpu_entry_points_tcp PROPERTIES LABELS "gtest;quick" TIMEOUT 120 PROCESSORS 2
  ENVIRONMENT FLAGCX_P2P_PATH=tcp)

# Once more over connections with several rails.
foreach(_name bad_input batch long_pieces read_write sync vectors)
  foreach(_rails 2 8)
    add_test(NAME proof.gtest_${_name}_rails_${_rails} COMMAND test_${_name})
    set_tests_properties(proof.gtest_${_name}_rails_${_rails} PROPERTIES LABELS proof TIMEOUT 120 PROCESSORS 2
      ENVIRONMENT "FLAGCX_P2P_TEST_RAILS=${_rails};FLAGCX_P2P_SOFTWARE_DEVICES=${_rails};FLAGCX_P2P_RAIL_MIN_BYTES=4096")
  endforeach()
endforeach()

# Once more where nothing but shared memory may carry a byte.
add_test(NAME gtest.shared_forced COMMAND test_shared --gtest_filter=SharedPeer.*)
set_tests_properties(gtest.shared_forced PROPERTIES LABELS "gtest;quick" TIMEOUT 120 PROCESSORS 2
  ENVIRONMENT FLAGCX_P2P_PATH=shared)

# The net adaptor's suites once more over the other provider: verbs, with the stand-in libibverbs of nullverbs/.
if(FLAGCX_P2P_VERBS)
  set(_nullverbs ${CMAKE_CURRENT_BINARY_DIR}/nullverbs)
  add_test(NAME gtest.nullverbs COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/nullverbs/build.sh ${_nullverbs})
  set_tests_properties(gtest.nullverbs PROPERTIES LABELS gtest TIMEOUT 120 FIXTURES_SETUP nullverbs)
  foreach(_name net_connect net_gdr net_memory net_table net_transfer)
    add_test(NAME gtest.${_name}_verbs COMMAND test_${_name})
    set_tests_properties(gtest.${_name}_verbs PROPERTIES LABELS "gtest;quick" TIMEOUT 120 PROCESSORS 2 SKIP_RETURN_CODE 77
      FIXTURES_REQUIRED nullverbs
      ENVIRONMENT "FLAGCX_P2P_FABRIC=verbs;FLAGCX_P2P_IBVERBS=${_nullverbs}/lib/libibverbs.so.1")
  endforeach()
endif()
