# sanitize.address, a proof: the C++ suites once more, built with AddressSanitizer, its leak check and UBSan. The Rust half is not
# instrumented, but what it allocates, leaks or frees twice is seen. Not registered by a build that is sanitized itself.

if(NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  add_test(NAME sanitize.address COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/sanitize.sh asan
    -DFLAGCX_P2P_OFFLINE=${FLAGCX_P2P_OFFLINE} -DFLAGCX_P2P_VERBS=${FLAGCX_P2P_VERBS}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(sanitize.address PROPERTIES LABELS "sanitize;proof" TIMEOUT 900 PROCESSORS 2 COST 550)
endif()
