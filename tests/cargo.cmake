# The Rust tests, in the cargo profile and target directory of this build. cargo.build builds the programs; each is then
# an entry of its own: cargo.core.unit holds the tests inside the crate of rust/core, cargo.core.NAME those of its
# tests/NAME.rs or tests/NAME/main.rs.

set(_cargo_test ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT} ${FLAGCX_P2P_CARGO} test --workspace
  ${FLAGCX_P2P_CARGO_OPTIONS})
set(_programs ${CMAKE_CURRENT_BINARY_DIR}/rust_programs)
set(_registered ${CMAKE_CURRENT_BINARY_DIR}/rust_programs_registered)

# It keeps several processors busy for as long as it runs.
set(_busy core.costs)
# These keep one busy.
set(_busy_one cli.files core.chaos_sources core.corpus_mutation core.fabric_conformance core.many_connections core.metrics_scrapes core.unit)
# Started first, because the longest entries determine the total time.
set(_early cli.bench cli.ending cli.logging cli.unit core.fabric_conformance core.gpu core.killed_peers core.metrics_scrapes
  core.unit core.unpolled_transfers)
# As well, and not labelled quick.
set(_long core.chaos_sources core.corpus_mutation core.dead_peers core.descriptors_of_peers core.destroy
  core.device_events core.hostile_clients core.many_connections core.network_faults core.regions_come_and_go
  core.rails core.rails_bad_input core.rails_conformance core.rails_processes core.rails_verbs core.two_hosts cli.files directory.etcd_failures directory.etcd_thousand_names)

file(GLOB _sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/rust/*/Cargo.toml
  ${PROJECT_SOURCE_DIR}/rust/*/tests/*.rs ${PROJECT_SOURCE_DIR}/rust/*/tests/*/main.rs
  ${PROJECT_SOURCE_DIR}/bridge/Cargo.toml ${PROJECT_SOURCE_DIR}/bridge/tests/*.rs)
# An extension module has no tests in Rust: python.cmake.
list(FILTER _sources EXCLUDE REGEX "^(.*/)?rust/python/")
string(REGEX REPLACE "(rust/)?([^/;]+)/Cargo.toml" "\\2.unit" _names "${_sources}")
string(REGEX REPLACE "(rust/)?([^/;]+)/tests/([^/;]+)(/main)?.rs" "\\2.\\3" _names "${_names}")
list(JOIN _names "\n" _lines)
file(WRITE ${_registered} "${_lines}\n")

# The whole workspace at once: crate by crate, cargo would resolve other features each time and build dependencies
# again.
add_test(NAME cargo.build WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/build.sh ${_registered} ${_programs} "--lib --tests" ${_cargo_test})
set_tests_properties(cargo.build PROPERTIES LABELS cargo TIMEOUT 1200 FIXTURES_SETUP cargo)

# Of these the tests that a filter leaves; all of them are proofs. Failing NICs one after the other take a while, and have bounds on
# times.
set(_in_part core.rails core.rails_conformance core.rails_processes core.rails_verbs)
set(_part_core.rails seen:: each_of_eight a_small_transfer the_end_that_was_connected_to an_end_ the_connection_outlives)
set(_part_core.rails_conformance --exact two_software_devices)
set(_part_core.rails_processes the_end_of_the_peer)
set(_part_core.rails_verbs every_byte)

foreach(_name IN LISTS _names)
  add_test(NAME cargo.${_name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} ${_name} ${_part_${_name}})
  set_tests_properties(cargo.${_name} PROPERTIES LABELS "cargo;quick" TIMEOUT 300 FIXTURES_REQUIRED cargo)
endforeach()
foreach(_name IN LISTS _busy)
  set_tests_properties(cargo.${_name} PROPERTIES PROCESSORS 4)
endforeach()
foreach(_name IN LISTS _busy_one)
  set_tests_properties(cargo.${_name} PROPERTIES PROCESSORS 2)
endforeach()
# It compares times.
set_tests_properties(cargo.core.silent_peers PROPERTIES RUN_SERIAL TRUE)
foreach(_name IN LISTS _early)
  set_tests_properties(cargo.${_name} PROPERTIES COST 50)
endforeach()
foreach(_name IN LISTS _long)
  set_tests_properties(cargo.${_name} PROPERTIES COST 100 LABELS cargo)
endforeach()

# The chaos suite with all of its faults, a million failed transfers, and the decoders with more inputs. Chaos is the longest proof
# and begins first; it has the processors, as some of its sources tell the effects of a fault by time.
add_test(NAME proof.chaos COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} core.chaos_sources)
set_tests_properties(proof.chaos PROPERTIES LABELS proof TIMEOUT 1200 PROCESSORS 4 COST 1000 FIXTURES_REQUIRED cargo
  ENVIRONMENT FLAGCX_P2P_TEST_SHARE=1)
# A tenth of them over memory that the engine allocates.
add_test(NAME proof.chaos_allocated
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} core.chaos_sources)
set_tests_properties(proof.chaos_allocated PROPERTIES LABELS proof TIMEOUT 600 PROCESSORS 2 FIXTURES_REQUIRED cargo
  ENVIRONMENT FLAGCX_P2P_TEST_MEMORY=allocated)
# Some of them, and a twentieth of all, over connections with several rails. The source "rails die" has its own. They leave
# room for one busy program on two processors.
set(_chaos_rails ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} core.chaos_sources)
add_test(NAME cargo.core.chaos_rails COMMAND ${_chaos_rails} every_kth posts_are regions_come networks_are)
set_tests_properties(cargo.core.chaos_rails PROPERTIES LABELS cargo TIMEOUT 300 PROCESSORS 2 FIXTURES_REQUIRED cargo
  ENVIRONMENT "FLAGCX_P2P_TEST_RAILS=2;FLAGCX_P2P_TEST_SHARE=50")
foreach(_rails 2 8)
  add_test(NAME proof.chaos_rails_${_rails} COMMAND ${_chaos_rails} --skip rails_die)
  set_tests_properties(proof.chaos_rails_${_rails} PROPERTIES LABELS proof TIMEOUT 600 PROCESSORS 3 COST 500
    FIXTURES_REQUIRED cargo ENVIRONMENT "FLAGCX_P2P_TEST_RAILS=${_rails};FLAGCX_P2P_TEST_SHARE=20")
endforeach()
# The same over eight stand-ins of NICs at each end, of which one is silent, one slow and one fails; with the source "rails die".
if(FLAGCX_P2P_VERBS)
  add_test(NAME proof.chaos_standins COMMAND ${_chaos_rails})
  set_tests_properties(proof.chaos_standins PROPERTIES LABELS proof TIMEOUT 600 PROCESSORS 3 COST 500 FIXTURES_REQUIRED cargo
    ENVIRONMENT "FLAGCX_P2P_FABRIC=verbs;FLAGCX_P2P_TEST_STANDINS=1;FLAGCX_P2P_TEST_RAILS=8;FLAGCX_P2P_TEST_SHARE=20")
endif()
foreach(_name IN LISTS _in_part)
  string(REPLACE core. proof. _proof ${_name})
  add_test(NAME ${_proof} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} ${_name})
  # Alone: they measure how soon a rail is left and used again.
  set_tests_properties(${_proof} PROPERTIES LABELS proof TIMEOUT 400 RUN_SERIAL TRUE FIXTURES_REQUIRED cargo)
endforeach()
add_test(NAME proof.failed_hold COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} core.failed_hold)
set_tests_properties(proof.failed_hold PROPERTIES LABELS proof TIMEOUT 300 FIXTURES_REQUIRED cargo
  ENVIRONMENT FLAGCX_P2P_TEST_SHARE=1)
add_test(NAME proof.fuzz COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} core.corpus_mutation)
set_tests_properties(proof.fuzz PROPERTIES LABELS proof TIMEOUT 600 PROCESSORS 2 FIXTURES_REQUIRED cargo
  ENVIRONMENT PROPTEST_CASES=20000)

# Names in an etcd of three members, of which some are lost; and what a thousand names cost in the time of their leases.
foreach(_name etcd_members etcd_thousand_names)
  add_test(NAME proof.${_name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/run.sh ${_programs} directory.${_name})
  set_tests_properties(proof.${_name} PROPERTIES LABELS proof TIMEOUT 300 FIXTURES_REQUIRED cargo
    ENVIRONMENT FLAGCX_P2P_TEST_SHARE=1)
endforeach()

add_test(NAME cargo.doc WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} COMMAND ${_cargo_test} --doc)
set_tests_properties(cargo.doc PROPERTIES LABELS cargo TIMEOUT 300 FIXTURES_REQUIRED cargo)

# The lock-free protocols, every interleaving of them, with loom's atomics in the place of std's. A name of our own: several
# crates that we use take `--cfg loom` for theirs. Another configuration of the same crate and all below it, in a target
# directory of its own: to compile that takes longer than any test, so it is a proof.
add_test(NAME proof.loom WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMAND ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT} "RUSTFLAGS=--cfg flagcx_p2p_loom"
          CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}/loom CARGO_INCREMENTAL=0
          ${FLAGCX_P2P_CARGO} test -p flagcx-p2p --no-default-features --locked --lib -- models)
set_tests_properties(proof.loom PROPERTIES LABELS proof TIMEOUT 900 PROCESSORS 2 COST 800)
