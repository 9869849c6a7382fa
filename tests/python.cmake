# The Python package: python/test_*.py under python/run.py. python.build builds it, with the native module of rust/python.

# The system's, for which `./x setup` installs numpy, before one of the user's own.
find_program(FLAGCX_P2P_PYTHON python3 HINTS /usr/bin)
file(GLOB _suites CONFIGURE_DEPENDS python/test_*.py)
if(_suites AND NOT FLAGCX_P2P_PYTHON)
  message(FATAL_ERROR "flagcx-p2p: python3 not found. Install it, or set -DFLAGCX_P2P_BUILD_TESTS=OFF.")
endif()

# A folder that holds `flagcx_p2p`, for PYTHONPATH.
set(FLAGCX_P2P_PYTHON_PACKAGE ${CMAKE_CURRENT_BINARY_DIR}/python)
add_test(NAME python.build WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/python/package.sh ${FLAGCX_P2P_PYTHON_PACKAGE}
          ${FLAGCX_P2P_CARGO_OUTPUT_DIR}/libflagcx_p2p_native.so ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT}
          ${FLAGCX_P2P_CARGO} build -p flagcx-p2p-python ${FLAGCX_P2P_CARGO_OPTIONS})
set_tests_properties(python.build PROPERTIES LABELS "python;quick" TIMEOUT 600 FIXTURES_SETUP python_package)

foreach(_suite IN LISTS _suites)
  get_filename_component(_module ${_suite} NAME_WE)
  string(REGEX REPLACE "^test_" "" _name ${_module})
  add_test(NAME python.${_name} COMMAND ${FLAGCX_P2P_PYTHON} run.py ${_module}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
  set_tests_properties(python.${_name} PROPERTIES LABELS "python;quick" TIMEOUT 120 FIXTURES_REQUIRED python_package
    SKIP_RETURN_CODE 77 ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1")
endforeach()
# Not among the quick ones: it waits for time-outs.
set_tests_properties(python.threads PROPERTIES LABELS python)
# Nor these: they start some fifty processes, and wait for peers that are gone.
set_tests_properties(python.mooncake python.mooncake_engine python.mooncake_etcd PROPERTIES LABELS python TIMEOUT 300)

# The default lease of a name; see python/proof_lease.py.
add_test(NAME proof.python_lease COMMAND ${FLAGCX_P2P_PYTHON} run.py proof_lease
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
set_tests_properties(proof.python_lease PROPERTIES LABELS "proof" TIMEOUT 120 FIXTURES_REQUIRED python_package
  SKIP_RETURN_CODE 77 ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1")

# The two commands of the README; see python/proof_install.py.
add_test(NAME proof.python_install COMMAND ${FLAGCX_P2P_PYTHON} run.py proof_install
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
set_tests_properties(proof.python_install PROPERTIES LABELS "proof" TIMEOUT 1200 PROCESSORS 2 COST 900
  ENVIRONMENT "FLAGCX_P2P_FABRIC=software;FLAGCX_P2P_BIND=127.0.0.1")

# Mooncake and checkpoint-engine from PyPI, beside this package; see python/proof_mooncake.py.
add_test(NAME proof.mooncake COMMAND ${FLAGCX_P2P_PYTHON} run.py proof_mooncake
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
set_tests_properties(proof.mooncake PROPERTIES LABELS "proof" TIMEOUT 1500 PROCESSORS 4 FIXTURES_REQUIRED python_package
  SKIP_RETURN_CODE 77 ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1")

# What needs packages from PyPI that ./x setup does not install: each gets an environment of its own in the build folder, with the
# package of python.build. Skipped, with pip's reason, where they cannot be installed.
function(flagcx_p2p_python_proof _name _module)
  add_test(NAME proof.python_${_name}
    COMMAND ${CMAKE_COMMAND} -E env PYTHON=${FLAGCX_P2P_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/python/in_environment.sh
            ${CMAKE_CURRENT_BINARY_DIR}/python_${_name} ${ARGN} -- run.py ${_module}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/python)
  set_tests_properties(proof.python_${_name} PROPERTIES LABELS "proof" TIMEOUT 600 FIXTURES_REQUIRED python_package
    SKIP_RETURN_CODE 77
    ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1;FLAGCX_P2P_FABRIC=software")
endfunction()
# All suites of asyncio; ./x test has one test of it, which is skipped where it is not installed.
flagcx_p2p_python_proof(uvloop proof_uvloop uvloop==0.22.1 numpy)
flagcx_p2p_python_proof(ray proof_ray ray==2.60.0 numpy)
set_tests_properties(proof.python_ray PROPERTIES PROCESSORS 2)
