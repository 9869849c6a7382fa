# The larger programs of python/examples, over the package of python.build. Each starts its processes, compares every byte, and ends
# with status 0 if all are right.

set(_examples ${PROJECT_SOURCE_DIR}/python/examples)
foreach(_example kv_cache weights)
  add_test(NAME example.${_example} COMMAND ${FLAGCX_P2P_PYTHON} ${_examples}/${_example}/main.py)
  set_tests_properties(example.${_example} PROPERTIES LABELS python FIXTURES_REQUIRED python_package PROCESSORS 2
    SKIP_REGULAR_EXPRESSION "No module named 'numpy'"
    ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1;FLAGCX_P2P_FABRIC=software")
endforeach()
# Moves 4 GiB over the first path: 10 to 15 s on two processors that are idle.
set_tests_properties(example.kv_cache PROPERTIES TIMEOUT 300)
set_tests_properties(example.weights PROPERTIES TIMEOUT 120)
