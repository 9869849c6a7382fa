# Included last: refuses mistyped options. CMake itself takes every -D: -DFLAGCX_P2P_VERB=OFF would build with verbs, without a message.
# A parent project may have variables of its own that begin so.

if(PROJECT_IS_TOP_LEVEL)
  get_cmake_property(_variables CACHE_VARIABLES)
  list(FILTER _variables INCLUDE REGEX "^FLAGCX_P2P_")
  # Declared only where tests, or the verbs provider, are built.
  list(FILTER _variables EXCLUDE REGEX "_(FETCH_GOOGLETEST|PYTHON|PKG_CONFIG|SHLIBDEPS|VERBS_H|RDMA_CMA_H|LIBCLANG)$")
  set(_options "")
  set(_unknown "")
  foreach(_variable IN LISTS _variables)
    get_property(_type CACHE ${_variable} PROPERTY TYPE)
    # What -D has set and nothing has declared.
    if(_type STREQUAL "UNINITIALIZED")
      list(APPEND _unknown ${_variable})
    elseif(_type MATCHES "^(BOOL|STRING|PATH)$")
      list(APPEND _options ${_variable})
    endif()
  endforeach()
  if(_unknown)
    list(JOIN _options ", " _options)
    message(FATAL_ERROR "flagcx-p2p: no such option: ${_unknown}. There are: ${_options}.")
  endif()
endif()
