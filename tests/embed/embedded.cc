// SPDX-License-Identifier: Apache-2.0
//
// The program of every embedding project: opens an engine, prints where it listens, and destroys it.
#include "flagcx_p2p.h"

#include <cstdio>

int main() {
  FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
  if (engine == nullptr) {
    std::fprintf(stderr, "no engine\n");
    return 1;
  }
  char *metadata = nullptr;
  int result = flagcxP2pEngineGetMetadata(engine, &metadata);
  if (result == 0) {
    std::printf("%s\n", metadata);
    delete[] metadata;
  }
  flagcxP2pEngineDestroy(engine);
  return result == 0 ? 0 : 1;
}
