# The runner of `./x bench python`, with little memory and only the package of python.build: each measurement moves the bytes that it
# says, and all drivers answer.
add_test(NAME python.bench_smoke COMMAND ${FLAGCX_P2P_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/python_bench/run.py --smoke)
set_tests_properties(python.bench_smoke PROPERTIES LABELS python TIMEOUT 120 FIXTURES_REQUIRED python_package PROCESSORS 2
  SKIP_REGULAR_EXPRESSION "No module named 'numpy'"
  ENVIRONMENT "PYTHONPATH=${FLAGCX_P2P_PYTHON_PACKAGE};PYTHONDONTWRITEBYTECODE=1")
