/* SPDX-License-Identifier: Apache-2.0
 *
 * embedded.cc in C: an engine comes up, says where it listens, and goes away. */
#include "flagcx_p2p_ext.h"

#include <stdio.h>

/* As flagcx_p2p.h declares them, which C cannot include. */
void *flagcxP2pRpcEngineCreate(void);
void flagcxP2pRpcEngineDestroy(void *engine);
int flagcxP2pRpcGetPort(void *engine);

int main(void) {
  void *engine = flagcxP2pRpcEngineCreate();
  if (engine == NULL) {
    fprintf(stderr, "no engine: %s\n", flagcxP2pEngineLastError());
    return 1;
  }
  const int port = flagcxP2pRpcGetPort(engine);
  printf("flagcx-p2p %s, port %d\n", flagcxP2pVersion(), port);
  flagcxP2pRpcEngineDestroy(engine);
  return port > 0 ? 0 : 1;
}
