# proof.instructions: what a write through flagcx_p2p.h takes in instructions, counted by callgrind, beside the goals of
# docs/design.md. No other test builds the library optimised, which takes some two minutes of processor time.

if(FLAGCX_P2P_VERBS AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  add_test(NAME proof.instructions COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/header_bench/instructions.sh
    ${CMAKE_CURRENT_BINARY_DIR}/instructions -DFLAGCX_P2P_CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}
    -DFLAGCX_P2P_OFFLINE=${FLAGCX_P2P_OFFLINE})
  set_tests_properties(proof.instructions PROPERTIES LABELS proof TIMEOUT 1200 PROCESSORS 2 COST 900
    SKIP_RETURN_CODE 77)
endif()
