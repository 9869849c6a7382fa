/* Writes a text into the memory of another process, and reads it back.
 *
 *   hello receive                      # prints its port and the address of its memory; a line of input ends it
 *   hello send HOST:PORT ADDRESS       # on any machine that reaches it
 */
#include "flagcx_p2p_ext.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char memory[4096];

static int failed(const char *what) {
  fprintf(stderr, "hello: %s: %s\n", what, flagcxP2pEngineLastError());
  return 1;
}

static int receive(FlagcxP2pEngine *engine) {
  if (flagcxP2pCEngineStartRpcServer(engine) != 0)
    return failed("cannot serve");
  printf("port %d, address %p\n", flagcxP2pCEngineGetRpcPort(engine), (void *)memory);
  fflush(stdout);
  getchar();
  printf("received: %s\n", memory);
  return 0;
}

/* Waits for a transfer, and tells how it ended. */
static int done(FlagcxP2pConn *peer, uint64_t id) {
  FlagcxP2pXferResult result = {.size = sizeof(result)};
  if (flagcxP2pEngineXferWait(peer, id, 60000, &result) == 0 && result.state == FLAGCX_P2P_XFER_DONE)
    return 1;
  fprintf(stderr, "hello: state %u: %s\n", result.state, result.reason);
  return 0;
}

static int send(FlagcxP2pEngine *engine, uint64_t region, const char *session, uint64_t address) {
  FlagcxP2pConn *peer = flagcxP2pCEngineGetConn(engine, session);
  if (peer == NULL)
    return failed("cannot connect");
  /* From the regions that the peer has registered by now. */
  FlagcxP2pRdmaDesc remote;
  if (flagcxP2pCEngineMakeDesc(peer, address, sizeof(memory), &remote) != 0)
    return failed("no such remote memory");
  strcpy(memory, "hello from C");
  uint64_t id = 0;
  if (flagcxP2pCEngineWrite(peer, region, memory, sizeof(memory), &remote, &id) != 0)
    return failed("cannot write");
  if (!done(peer, id))
    return 1;
  if (flagcxP2pCEngineRead(peer, region, memory, sizeof(memory), &remote, &id) != 0)
    return failed("cannot read");
  if (!done(peer, id))
    return 1;
  printf("written and read back: %s\n", memory);
  return 0;
}

int main(int argc, char **argv) {
  const int receives = argc == 2 && strcmp(argv[1], "receive") == 0;
  const uint64_t address = argc == 4 && strcmp(argv[1], "send") == 0 ? strtoull(argv[3], NULL, 16) : 0;
  if (!receives && address == 0) {
    fprintf(stderr, "usage: hello receive | hello send HOST:PORT ADDRESS\n");
    return 2;
  }
  FlagcxP2pEngine *engine = flagcxP2pCEngineCreate();
  uint64_t region = 0;
  if (engine == NULL)
    return failed("no engine");
  /* Memory registered before a peer connects is announced to it. */
  int status = flagcxP2pEngineRegFlags(engine, (uintptr_t)memory, sizeof(memory), FLAGCX_P2P_REG_HOST, &region);
  status = status != 0 ? failed("cannot register")
           : receives  ? receive(engine)
                       : send(engine, region, argv[2], address);
  flagcxP2pCEngineDestroy(engine);
  return status;
}
