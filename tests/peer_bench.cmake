# peer_bench/, behind `./x bench peers`: the tests of the runner, and a run of some seconds over this engine and the
# machine's limits, without the peers, which would have to be installed.

set(_peers ${CMAKE_CURRENT_BINARY_DIR}/peer_bench)
set(_runner ${CMAKE_CURRENT_SOURCE_DIR}/peer_bench)

add_test(NAME python.peer_bench_runner COMMAND ${FLAGCX_P2P_PYTHON} -m unittest -v test_quiet test_results test_aims
  test_docs_page test_files test_rounds
  WORKING_DIRECTORY ${_runner})
set_tests_properties(python.peer_bench_runner PROPERTIES LABELS "python;quick" TIMEOUT 60)

add_test(NAME python.peer_bench_build COMMAND ${_runner}/build.sh ${_peers}
  ${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix/lib)
set_tests_properties(python.peer_bench_build PROPERTIES LABELS python TIMEOUT 120 FIXTURES_REQUIRED shared
  FIXTURES_SETUP peer_bench ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER};CXXFLAGS=${CMAKE_CXX_FLAGS}")

add_test(NAME python.peer_bench_drivers COMMAND ${FLAGCX_P2P_PYTHON} -m unittest -v test_drivers
  WORKING_DIRECTORY ${_runner})
add_test(NAME python.peer_bench_smoke COMMAND ${FLAGCX_P2P_PYTHON} ${_runner}/run.py --smoke --build ${_peers})
set_tests_properties(python.peer_bench_drivers python.peer_bench_smoke PROPERTIES LABELS python TIMEOUT 120 PROCESSORS 2
  SKIP_RETURN_CODE 77 FIXTURES_REQUIRED peer_bench
  ENVIRONMENT "PEER_BENCH_BUILD=${_peers};PYTHONDONTWRITEBYTECODE=1")
