# c/: the functions of flagcx_p2p_ext.h from a C program, one ctest entry for each of its suites. Labelled as the C++ suites,
# so that the sanitizers' presets run them too.

enable_language(C)
file(GLOB _sources CONFIGURE_DEPENDS c/*.c)
find_package(Threads REQUIRED)
add_executable(c_suite ${_sources})
target_link_libraries(c_suite PRIVATE flagcx_p2p Threads::Threads)
target_compile_definitions(c_suite PRIVATE _DEFAULT_SOURCE)
target_compile_options(c_suite PRIVATE -Wall -Wextra -Wvla -pedantic -Wstrict-prototypes -Werror)
set_target_properties(c_suite PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
  RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/c)

foreach(_suite connect vectors descriptors shared notifications sessions stop_accept bad_input two_processes information slow_transfers)
  add_test(NAME c.${_suite} COMMAND c_suite ${_suite})
  set_tests_properties(c.${_suite} PROPERTIES LABELS "gtest;quick" TIMEOUT 90 PROCESSORS 2
    ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1;FLAGCX_P2P_CONNECT_TIMEOUT_MS=200")
endforeach()
