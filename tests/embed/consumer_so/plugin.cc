// SPDX-License-Identifier: Apache-2.0
//
// A plugin that holds the engine inside, next to another Rust library, and offers one function.
#include "flagcx_p2p.h"

#include <cstdio>
#include <cstring>

extern "C" unsigned other_rust_library(unsigned value);

extern "C" __attribute__((visibility("default"))) int plugin_metadata(char *out, size_t capacity) {
  FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
  char *metadata = nullptr;
  int result = flagcxP2pEngineGetMetadata(engine, &metadata);
  if (result == 0) {
    std::snprintf(out, capacity, "%s", metadata);
    delete[] metadata;
  }
  flagcxP2pEngineDestroy(engine);
  return result == 0 && other_rust_library(20) == 42 ? 0 : 1;
}
