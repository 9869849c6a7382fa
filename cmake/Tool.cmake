# The command line tool with its manual pages and completions, which it writes itself. Target flagcx_p2p_tool.

include(GNUInstallDirs)

file(GLOB_RECURSE _sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/rust/core/src/*.rs ${PROJECT_SOURCE_DIR}/rust/cli/src/*.rs)
list(APPEND _sources ${PROJECT_SOURCE_DIR}/rust/core/Cargo.toml ${PROJECT_SOURCE_DIR}/rust/cli/Cargo.toml
  ${PROJECT_SOURCE_DIR}/Cargo.toml ${PROJECT_SOURCE_DIR}/Cargo.lock)

set(_tool ${CMAKE_CURRENT_BINARY_DIR}/tool)
set(_program ${_tool}/flagcx-p2p)
set(_man ${_tool}/man1)
set(_bash ${_tool}/flagcx-p2p.bash)
set(_zsh ${_tool}/_flagcx-p2p)
set(_fish ${_tool}/flagcx-p2p.fish)

# Copied always, as the bridge's archive is.
add_custom_command(OUTPUT ${_program}
  COMMAND ${CMAKE_COMMAND} -E env ${FLAGCX_P2P_CARGO_ENVIRONMENT}
          ${FLAGCX_P2P_CARGO} build -p flagcx-p2p-cli ${FLAGCX_P2P_CARGO_OPTIONS}
  COMMAND ${CMAKE_COMMAND} -E copy ${FLAGCX_P2P_CARGO_OUTPUT_DIR}/flagcx-p2p ${_program}
  DEPENDS ${_sources} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  COMMENT "cargo build flagcx-p2p-cli" VERBATIM USES_TERMINAL)
# The folder is made anew, so that no page of a former command stays.
add_custom_command(OUTPUT ${_man}/flagcx-p2p.1 ${_bash} ${_zsh} ${_fish}
  COMMAND ${CMAKE_COMMAND} -E rm -rf ${_man}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${_man}
  COMMAND ${_program} man ${_man}
  COMMAND ${_program} completions bash > ${_bash}
  COMMAND ${_program} completions zsh > ${_zsh}
  COMMAND ${_program} completions fish > ${_fish}
  DEPENDS ${_program} COMMENT "Manual pages and completions of flagcx-p2p" VERBATIM)
add_custom_target(flagcx_p2p_tool ALL DEPENDS ${_program} ${_man}/flagcx-p2p.1 ${_bash} ${_zsh} ${_fish})

if(FLAGCX_P2P_INSTALL)
  install(PROGRAMS ${_program} DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tool)
  install(DIRECTORY ${_man}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT tool)
  install(FILES ${_bash} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME flagcx-p2p COMPONENT tool)
  install(FILES ${_zsh} DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT tool)
  install(FILES ${_fish} DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT tool)
endif()
