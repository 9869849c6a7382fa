# The Rust tests, in the cargo profile and target directory of this build. The whole workspace at once: asked crate by
# crate, cargo would resolve other features each time and build the same dependencies again.

function(flagcx_p2p_add_cargo_test name timeout)
  add_test(NAME cargo.${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    COMMAND ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT}
            ${FLAGCX_P2P_CARGO} test --workspace ${FLAGCX_P2P_CARGO_OPTIONS} ${ARGN})
  set_tests_properties(cargo.${name} PROPERTIES LABELS cargo TIMEOUT ${timeout})
endfunction()

flagcx_p2p_add_cargo_test(build 1200 --lib --bins --tests --no-run)
flagcx_p2p_add_cargo_test(unit 1200 --lib --bins --tests)
flagcx_p2p_add_cargo_test(doc 300 --doc)
set_tests_properties(cargo.unit PROPERTIES PROCESSORS 2)
set_tests_properties(cargo.build PROPERTIES FIXTURES_SETUP cargo)
set_tests_properties(cargo.unit cargo.doc PROPERTIES FIXTURES_REQUIRED cargo)

# The lock-free protocols, every interleaving of them, with loom's atomics in the place of std's. Another configuration of
# the same crate, so in a target directory of its own.
add_test(NAME cargo.loom WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT} "RUSTFLAGS=--cfg loom"
          CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}/loom
          ${FLAGCX_P2P_CARGO} test -p flagcx-p2p --no-default-features --locked --lib -- models)
set_tests_properties(cargo.loom PROPERTIES LABELS cargo TIMEOUT 900)
