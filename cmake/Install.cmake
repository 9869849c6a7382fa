# Installs the headers, the library, a CMake package and a pkg-config file.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/flagcx_p2p)
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")
install(TARGETS flagcx_p2p EXPORT flagcx_p2p-targets)
install(EXPORT flagcx_p2p-targets NAMESPACE flagcx_p2p:: FILE flagcx_p2p-config.cmake DESTINATION ${_package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/flagcx_p2p-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/flagcx_p2p-config-version.cmake DESTINATION ${_package_dir})

# From the pkg-config file's own folder to the prefix: an installed tree can be moved.
file(RELATIVE_PATH FLAGCX_P2P_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
list(TRANSFORM FLAGCX_P2P_NATIVE_LIBS PREPEND -l OUTPUT_VARIABLE _libs_private)
list(JOIN _libs_private " " FLAGCX_P2P_PC_LIBS_PRIVATE)
configure_file(${PROJECT_SOURCE_DIR}/cmake/flagcx_p2p.pc.in flagcx_p2p.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/flagcx_p2p.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
