# README and docs/: docs/test_*.py under python/run.py. The programs of the guide are built here, by cargo.examples, or by
# nothing.

enable_language(C)
set(_hello ${PROJECT_SOURCE_DIR}/cpp/examples/hello)
foreach(_language cc c)
  add_executable(hello_${_language} ${_hello}.${_language})
  target_link_libraries(hello_${_language} PRIVATE flagcx_p2p)
  target_compile_options(hello_${_language} PRIVATE -Wall -Wextra -Wvla)
endforeach()
target_compile_features(hello_cc PRIVATE cxx_std_11)
target_compile_features(hello_c PRIVATE c_std_99)

# The lines of consumers.md; gtest.consumers has them over this library.
add_executable(how_it_ended_without docs/how_it_ended_without.cc)
target_include_directories(how_it_ended_without PRIVATE ${PROJECT_SOURCE_DIR}/cpp/include ${PROJECT_SOURCE_DIR}/cpp/examples)
target_compile_options(how_it_ended_without PRIVATE -Wall -Wextra -Wvla)
target_compile_features(how_it_ended_without PRIVATE cxx_std_11)
add_test(NAME docs.how_it_ended COMMAND how_it_ended_without)
set_tests_properties(docs.how_it_ended PROPERTIES LABELS "docs;quick" TIMEOUT 20)

# The whole workspace, as cargo.build.
add_test(NAME cargo.examples WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT} ${FLAGCX_P2P_CARGO} build --workspace --examples
          ${FLAGCX_P2P_CARGO_OPTIONS})
set_tests_properties(cargo.examples PROPERTIES LABELS "cargo;quick" TIMEOUT 300 FIXTURES_REQUIRED cargo
  FIXTURES_SETUP examples)

# The programs of rust/core/examples that need no other one; hello is among the programs below.
foreach(_example two_processes futures event_loop)
  add_test(NAME docs.rust_${_example} COMMAND ${FLAGCX_P2P_CARGO_OUTPUT_DIR}/examples/${_example})
  set_tests_properties(docs.rust_${_example} PROPERTIES LABELS "docs;quick" TIMEOUT 60 FIXTURES_REQUIRED "cargo;examples"
    ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1")
endforeach()

set(_prefix ${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix)
file(GLOB _suites CONFIGURE_DEPENDS docs/test_*.py)
foreach(_suite IN LISTS _suites)
  get_filename_component(_module ${_suite} NAME_WE)
  string(REGEX REPLACE "^test_" "" _name ${_module})
  add_test(NAME docs.${_name} COMMAND ${FLAGCX_P2P_PYTHON} run.py ${_module}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
  set_tests_properties(docs.${_name} PROPERTIES LABELS "docs;quick" TIMEOUT 120
    FIXTURES_REQUIRED "shared;cargo;examples;python_package"
    ENVIRONMENT "FLAGCX_P2P_LIBRARY=${_prefix}/lib/libflagcx_p2p.so;PREFIX=${_prefix};CXX=${CMAKE_CXX_COMPILER};PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE}:${CMAKE_CURRENT_SOURCE_DIR}/docs;HELLO_CPP=$<TARGET_FILE:hello_cc>;HELLO_C=$<TARGET_FILE:hello_c>;HELLO_RUST=${FLAGCX_P2P_CARGO_OUTPUT_DIR}/examples/hello;TOOL=${FLAGCX_P2P_CARGO_OUTPUT_DIR}/flagcx-p2p")
endforeach()
