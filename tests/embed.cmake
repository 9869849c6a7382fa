# Projects that use the library the way its users do (embed/), and the checks of what it exports and loads (abi/).
# They build with this build's compiler and cargo settings, so cargo has nothing to compile again.

set(_common -DCMAKE_BUILD_TYPE=$<CONFIG> -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} "-DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS}"
  -DFLAGCX_P2P_CARGO_PROFILE=${FLAGCX_P2P_CARGO_PROFILE} -DFLAGCX_P2P_CARGO_TARGET_DIR=${FLAGCX_P2P_CARGO_DIR}
  -DFLAGCX_P2P_OFFLINE=${FLAGCX_P2P_OFFLINE} -DFLAGCX_P2P_VERBS=${FLAGCX_P2P_VERBS})
set(_embed ${CMAKE_CURRENT_SOURCE_DIR}/embed)
set(_abi ${CMAKE_CURRENT_SOURCE_DIR}/abi)
set(_work ${CMAKE_CURRENT_BINARY_DIR}/embed)

function(flagcx_p2p_add_embed_test name)
  add_test(NAME ${name} COMMAND ${ARGN})
  string(REGEX REPLACE "\\..*" "" _label ${name})
  # The engines of these programs need no device, and find none by accident.
  set_tests_properties(${name} PROPERTIES LABELS ${_label} TIMEOUT 300 ENVIRONMENT FLAGCX_P2P_FABRIC=software)
endfunction()

# Builds the CMake project embed/PROJECT in a folder of its own and runs the program `embedded` that it makes.
function(flagcx_p2p_add_embed_project name project generator)
  flagcx_p2p_add_embed_test(embed.${name}
    ${CMAKE_CTEST_COMMAND} --build-and-test ${_embed}/${project} ${_work}/${name} --build-generator ${generator}
    --build-options ${_common} ${ARGN} --test-command embedded)
endfunction()

# embed.install_static and embed.install_shared, under embed/<kind>/prefix: what this build has built, and the other kind,
# built alone.
foreach(_kind static shared)
  string(COMPARE EQUAL ${_kind} shared _is_shared)
  if((_is_shared AND BUILD_SHARED_LIBS) OR NOT (_is_shared OR BUILD_SHARED_LIBS))
    flagcx_p2p_add_embed_test(embed.install_${_kind}
      ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${_work}/${_kind}/prefix)
  else()
    flagcx_p2p_add_embed_test(embed.install_${_kind} ${_embed}/install.sh ${PROJECT_SOURCE_DIR} ${_work}/${_kind}
      ${_common} -G Ninja -DBUILD_SHARED_LIBS=${_is_shared} -DFLAGCX_P2P_BUILD_TESTS=OFF)
    set(_builds embed.install_${_kind})
  endif()
  set_tests_properties(embed.install_${_kind} PROPERTIES FIXTURES_SETUP ${_kind})

  flagcx_p2p_add_embed_project(cmake_installed_${_kind} cmake_installed Ninja
    -DCMAKE_PREFIX_PATH=${_work}/${_kind}/prefix)
  flagcx_p2p_add_embed_project(c_installed_${_kind} c_installed Ninja -DCMAKE_PREFIX_PATH=${_work}/${_kind}/prefix)
  set_tests_properties(embed.cmake_installed_${_kind} embed.c_installed_${_kind} PROPERTIES FIXTURES_REQUIRED ${_kind})
endforeach()

flagcx_p2p_add_embed_project(cmake_subdirectory_ninja cmake_subdirectory Ninja
  -DFLAGCX_P2P_SOURCE=${PROJECT_SOURCE_DIR} -DBUILD_SHARED_LIBS=OFF)
flagcx_p2p_add_embed_project(cmake_subdirectory_make cmake_subdirectory "Unix Makefiles"
  -DFLAGCX_P2P_SOURCE=${PROJECT_SOURCE_DIR} -DBUILD_SHARED_LIBS=ON)
flagcx_p2p_add_embed_project(c_subdirectory c_subdirectory Ninja
  -DFLAGCX_P2P_SOURCE=${PROJECT_SOURCE_DIR} -DBUILD_SHARED_LIBS=OFF)
foreach(_generator ninja make)
  set_tests_properties(embed.cmake_subdirectory_${_generator} PROPERTIES FIXTURES_SETUP ${_generator})
  flagcx_p2p_add_embed_test(embed.rebuild_does_nothing_${_generator}
    ${_embed}/rebuild_does_nothing.sh ${_work}/cmake_subdirectory_${_generator})
  set_tests_properties(embed.rebuild_does_nothing_${_generator} PROPERTIES FIXTURES_REQUIRED ${_generator})
endforeach()

flagcx_p2p_add_embed_test(embed.makefile_flagcx ${_embed}/makefile_flagcx/run.sh
  ${_work}/static/prefix ${_work}/makefile_flagcx ${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS})
flagcx_p2p_add_embed_test(embed.consumer_so ${_embed}/consumer_so/run.sh
  ${_work}/static/prefix ${_work}/consumer_so ${CMAKE_CXX_COMPILER} ${CMAKE_CXX_FLAGS})
set_tests_properties(embed.makefile_flagcx embed.consumer_so PROPERTIES FIXTURES_REQUIRED static)

# Among the longest, and with compilers for every processor: early, and beside little else.
list(APPEND _builds embed.cmake_subdirectory_ninja embed.cmake_subdirectory_make embed.c_subdirectory)
set_tests_properties(${_builds} PROPERTIES COST 60 PROCESSORS 3)

# Without the tests' dependencies cargo compiles the crates anew, for half a minute: a proof. cli.generated has the contents.
flagcx_p2p_add_embed_test(embed.tool ${_embed}/tool.sh ${PROJECT_SOURCE_DIR} ${_work}/tool ${_common})
set_tests_properties(embed.tool PROPERTIES LABELS "embed;proof" PROCESSORS 2 COST 600 FIXTURES_REQUIRED cargo)

# Library, tool and archives of packages; compiled as embed.tool compiles, half a minute without it.
flagcx_p2p_add_embed_test(embed.package ${_embed}/package.sh ${PROJECT_SOURCE_DIR} ${_work}/package ${_common})
set_tests_properties(embed.package PROPERTIES LABELS "embed;proof" PROCESSORS 2 COST 700 FIXTURES_REQUIRED cargo)

flagcx_p2p_add_embed_test(abi.headers ${_abi}/headers.sh ${PROJECT_SOURCE_DIR}/cpp/include ${CMAKE_CXX_COMPILER})
flagcx_p2p_add_embed_test(abi.c_functions ${_abi}/c_functions.sh ${PROJECT_SOURCE_DIR})
flagcx_p2p_add_embed_test(abi.exported_symbols ${_abi}/exported_symbols.sh
  ${_work}/shared/prefix ${PROJECT_SOURCE_DIR}/cpp/exports.txt)
flagcx_p2p_add_embed_test(abi.needed_libraries ${_abi}/needed_libraries.sh
  ${_work}/shared/prefix ${CMAKE_CURRENT_BINARY_DIR}/gtest ${FLAGCX_P2P_CARGO_OUTPUT_DIR})
set_tests_properties(abi.exported_symbols PROPERTIES FIXTURES_REQUIRED shared)
set_tests_properties(abi.needed_libraries PROPERTIES FIXTURES_REQUIRED "shared;cargo")

# Of the selection `quick`: what compiles little.
foreach(_name embed.install_shared embed.cmake_installed_shared embed.c_installed_shared abi.headers abi.c_functions abi.exported_symbols abi.needed_libraries)
  set_property(TEST ${_name} APPEND PROPERTY LABELS quick)
endforeach()
