# Packages of what is installed: `cpack` in the build directory of the preset `package`, or ./x package. A .deb and a .tar.gz.

set(CPACK_PACKAGE_NAME flagcx-p2p)
set(CPACK_PACKAGE_VENDOR "FlagCX")
set(CPACK_PACKAGE_CONTACT "The flagcx-p2p authors")
set(CPACK_PACKAGE_HOMEPAGE_URL "https://github.com/flagos-ai/FlagCX")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION "One-sided READ and WRITE of registered memory between two processes, over RDMA or software:\n\
 the library with its C and C++ headers, and the tool flagcx-p2p.")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR "DEB;TGZ")
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_FILE_NAME flagcx-p2p-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
# One package, whatever the components are.
set(CPACK_MONOLITHIC_INSTALL ON)
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
# An archive is unpacked anywhere: pkg-config and CMake find the rest from where their files are.
set(CPACK_PROJECT_CONFIG_FILE ${PROJECT_SOURCE_DIR}/cmake/PackageArchive.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
# By dpkg-shlibdeps, where it is.
find_program(FLAGCX_P2P_SHLIBDEPS dpkg-shlibdeps)
mark_as_advanced(FLAGCX_P2P_SHLIBDEPS)
if(FLAGCX_P2P_SHLIBDEPS)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
else()
  message(STATUS "flagcx-p2p: dpkg-shlibdeps not found (package dpkg-dev): a .deb will not say what it depends on")
endif()
# Found at run time; without a NIC they are not used.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "ibverbs-providers")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ${BUILD_SHARED_LIBS})
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
# The cache of the dynamic linker.
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/debian/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/debian/triggers)

set(_documents ${CMAKE_INSTALL_DATADIR}/doc/flagcx-p2p)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${_documents} RENAME copyright)
# Of the crates that library and tool contain: ./x package writes it.
install(FILES ${PROJECT_BINARY_DIR}/THIRD-PARTY-LICENSES.txt DESTINATION ${_documents} OPTIONAL)
include(CPack)
