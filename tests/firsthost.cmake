# The script of `./x firsthost`, over played trees of /sys and for real on a machine without a NIC.
add_test(NAME firsthost.script COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/firsthost/test.sh ${FLAGCX_P2P_CARGO_OUTPUT_DIR}/flagcx-p2p)
set_tests_properties(firsthost.script PROPERTIES LABELS "docs;quick" TIMEOUT 120 FIXTURES_REQUIRED "cargo;examples")
