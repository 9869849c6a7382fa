# googletest 1.14.0, downloaded; only with -DFLAGCX_P2P_FETCH_GOOGLETEST=ON. README.md describes how to update the pin.
include(FetchContent)
FetchContent_Declare(googletest
  GIT_REPOSITORY https://github.com/google/googletest.git
  GIT_TAG f8d7d77c06936315286eb55f8de22cd23c188571)
FetchContent_MakeAvailable(googletest)
