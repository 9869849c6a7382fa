# NIXL's Python package over this library: nixl/proof_nixl.py. A proof, because it installs `nixl` from PyPI.
add_test(NAME proof.nixl COMMAND ${FLAGCX_P2P_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/python/run.py proof_nixl)
set_tests_properties(proof.nixl PROPERTIES LABELS proof TIMEOUT 600 PROCESSORS 2 SKIP_RETURN_CODE 77 FIXTURES_REQUIRED shared
  ENVIRONMENT "PYTHONPATH=${CMAKE_CURRENT_SOURCE_DIR}/nixl;PYTHONDONTWRITEBYTECODE=1;FLAGCX_P2P_LIBRARY=${CMAKE_CURRENT_BINARY_DIR}/embed/shared/prefix/lib/libflagcx_p2p.so")
