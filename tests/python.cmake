# The ctypes package: python/test_*.py under python/run.py, with the shared library of embed.install_shared.

# The system's, for which `./x setup` installs numpy, before one of the user's own.
find_program(FLAGCX_P2P_PYTHON python3 HINTS /usr/bin)
file(GLOB _suites CONFIGURE_DEPENDS python/test_*.py)
if(_suites AND NOT FLAGCX_P2P_PYTHON)
  message(FATAL_ERROR "flagcx-p2p: python3 not found. Install it, or set -DFLAGCX_P2P_BUILD_TESTS=OFF.")
endif()

foreach(_suite IN LISTS _suites)
  get_filename_component(_module ${_suite} NAME_WE)
  string(REGEX REPLACE "^test_" "" _name ${_module})
  add_test(NAME python.${_name} COMMAND ${FLAGCX_P2P_PYTHON} run.py ${_module}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
  set_tests_properties(python.${_name} PROPERTIES LABELS "python;quick" TIMEOUT 120 FIXTURES_REQUIRED shared
    SKIP_RETURN_CODE 77
    ENVIRONMENT "FLAGCX_P2P_LIBRARY=${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix/lib/libflagcx_p2p.so;PYTHONPATH=${PROJECT_SOURCE_DIR}/python")
endforeach()
# Not among the quick ones: it waits for time-outs.
set_tests_properties(python.threads PROPERTIES LABELS python)

# The two commands of the README; see python/proof_install.py.
add_test(NAME proof.python_install COMMAND ${FLAGCX_P2P_PYTHON} run.py proof_install
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
set_tests_properties(proof.python_install PROPERTIES LABELS "proof" TIMEOUT 1200 PROCESSORS 2
  ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1;CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}/wheel")
