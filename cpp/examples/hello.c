/* Writes a text into the memory of another process.
 *
 *   hello receive                      # prints its port and the address of its memory; a line of input ends it
 *   hello send HOST:PORT ADDRESS       # on any machine that reaches it
 */
#include "flagcx_p2p_ext.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* flagcx_p2p.h cannot be included by C. These are its functions of C linkage, as it declares them. */
void *flagcxP2pRpcEngineCreate(void);
void flagcxP2pRpcEngineDestroy(void *engine);
int flagcxP2pRpcGetPort(void *engine);
int flagcxP2pRpcStartServer(void *engine);
int flagcxP2pRpcRegisterHost(void *engine, uint64_t addr, uint64_t size, uint64_t *mrIdOut);
void *flagcxP2pRpcGetConn(void *engine, const char *session);
int flagcxP2pRpcBatchWriteSync(void *conn, int count, const uint64_t *srcVa, const uint64_t *dstVa,
                               const uint64_t *sizes);

static char memory[4096];

static int failed(const char *what) {
  fprintf(stderr, "hello: %s: %s\n", what, flagcxP2pEngineLastError());
  return 1;
}

static int receive(void *engine) {
  if (flagcxP2pRpcStartServer(engine) != 0)
    return failed("cannot serve");
  printf("port %d, address %p\n", flagcxP2pRpcGetPort(engine), (void *)memory);
  fflush(stdout);
  getchar();
  printf("received: %s\n", memory);
  return 0;
}

static int send(void *engine, const char *session, uint64_t address) {
  const uint64_t source = (uint64_t)(uintptr_t)memory, size = sizeof(memory);
  strcpy(memory, "hello from C");
  void *peer = flagcxP2pRpcGetConn(engine, session);
  if (peer == NULL)
    return failed("cannot connect");
  /* All bytes are in the peer's memory when this answers 0. Any number of pieces may go at once. */
  if (flagcxP2pRpcBatchWriteSync(peer, 1, &source, &address, &size) != 0)
    return failed("cannot write");
  puts("written");
  return 0;
}

int main(int argc, char **argv) {
  const int receives = argc == 2 && strcmp(argv[1], "receive") == 0;
  const uint64_t address = argc == 4 && strcmp(argv[1], "send") == 0 ? strtoull(argv[3], NULL, 16) : 0;
  if (!receives && address == 0) {
    fprintf(stderr, "usage: hello receive | hello send HOST:PORT ADDRESS\n");
    return 2;
  }
  void *engine = flagcxP2pRpcEngineCreate();
  uint64_t region = 0;
  if (engine == NULL)
    return failed("no engine");
  /* Memory registered before a peer connects is announced to it. */
  int status = flagcxP2pRpcRegisterHost(engine, (uint64_t)(uintptr_t)memory, sizeof(memory), &region);
  status = status != 0 ? failed("cannot register") : receives ? receive(engine) : send(engine, argv[2], address);
  flagcxP2pRpcEngineDestroy(engine);
  return status;
}
