# Cross-compiled for another machine, the C++ and C suites of gtest.cmake and c.cmake run under the emulator that the toolchain file
# names. Here are the Rust test programs that run beside them; the names are those of cargo.cmake. `./x test arm64` runs it all.

set(_programs ${CMAKE_CURRENT_BINARY_DIR}/rust_programs)
set(_registered ${CMAKE_CURRENT_BINARY_DIR}/rust_programs_registered)
# The engine; then verbs, by the stand-in of nullverbs/.
set(_suites ended_queue engine_addresses engine_healing engine_ipv6 engine_sessions engine_transfers event_loop fabric_conformance
  transfer_futures
  awkward_devices awkward_ports device_events registration slow_commands verbs_nullverbs)

set(_names bridge.unit core.unit)
set(_targets --lib)
foreach(_suite IN LISTS _suites)
  list(APPEND _names core.${_suite})
  list(APPEND _targets --test ${_suite})
endforeach()
list(JOIN _names "\n" _lines)
file(WRITE ${_registered} "${_lines}\n")
list(JOIN _targets " " _targets)

add_custom_target(emulated_programs ALL WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} DEPENDS flagcx_p2p_cargo
  COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cargo/build.sh ${_registered} ${_programs} ${_targets}
          ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT}
          ${FLAGCX_P2P_CARGO} test -p flagcx-p2p -p flagcx-p2p-bridge ${FLAGCX_P2P_CARGO_OPTIONS}
  COMMENT "cargo test --no-run" VERBATIM USES_TERMINAL)

foreach(_name IN LISTS _names)
  add_test(NAME cargo.${_name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/arm64/program.sh ${_programs} ${_name})
  set_tests_properties(cargo.${_name} PROPERTIES LABELS cargo TIMEOUT 300 PROCESSORS 2)
endforeach()
# It compares times.
set_tests_properties(cargo.core.slow_commands PROPERTIES RUN_SERIAL TRUE)
# Begun first, for they take longest.
set_tests_properties(cargo.core.unit cargo.core.fabric_conformance cargo.core.registration gtest.fork gtest.long_pieces PROPERTIES
  COST 100)
