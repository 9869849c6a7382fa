/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded.cc in C: an engine is created, prints where it listens, and is destroyed. */
#include "flagcx_p2p_ext.h"

#include <stdio.h>

int main(void) {
  FlagcxP2pEngine *engine = flagcxP2pCEngineCreate();
  if (engine == NULL) {
    fprintf(stderr, "no engine: %s\n", flagcxP2pEngineLastError());
    return 1;
  }
  const int port = flagcxP2pCEngineGetRpcPort(engine);
  printf("flagcx-p2p %s, port %d\n", flagcxP2pVersion(), port);
  flagcxP2pCEngineDestroy(engine);
  return port > 0 ? 0 : 1;
}
