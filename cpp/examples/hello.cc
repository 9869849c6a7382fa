// Writes a text into the memory of another process, and reads it back.
//
//   hello receive                      # prints its port and the address of its memory; a line of input ends it
//   hello send HOST:PORT ADDRESS       # on any machine that reaches it
#include "flagcx_p2p.h"
#include "flagcx_p2p_ext.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

static char memory[4096];

static int failed(const char *what) {
  std::fprintf(stderr, "hello: %s: %s\n", what, flagcxP2pEngineLastError());
  return 1;
}

static int receive(FlagcxP2pEngine *engine) {
  if (flagcxP2pEngineStartRpcServer(engine) != 0)
    return failed("cannot serve");
  std::printf("port %d, address %p\n", flagcxP2pEngineGetRpcPort(engine), static_cast<void *>(memory));
  std::fflush(stdout);
  std::getchar();
  std::printf("received: %s\n", memory);
  return 0;
}

// Waits for a transfer. How it ended is known here only: flagcxP2pEngineXferStatus says no more than that it has.
static bool done(FlagcxP2pConn *peer, uint64_t id) {
  FlagcxP2pXferResult result{};
  result.size = sizeof(result);
  if (flagcxP2pEngineXferWait(peer, id, 60000, &result) == 0 && result.state == FLAGCX_P2P_XFER_DONE)
    return true;
  std::fprintf(stderr, "hello: state %u: %s\n", result.state, result.reason);
  return false;
}

static int send(FlagcxP2pEngine *engine, FlagcxP2pMr region, const char *session, uint64_t address) {
  std::strcpy(memory, "hello from C++");
  FlagcxP2pConn *peer = flagcxP2pEngineGetConn(engine, session);
  if (peer == nullptr)
    return failed("cannot connect");
  // From the regions that the peer has registered by now.
  FlagcxP2pRdmaDesc remote;
  if (flagcxP2pEngineMakeDesc(peer, address, sizeof(memory), &remote) != 0)
    return failed("no such remote memory");
  uint64_t id = 0;
  if (flagcxP2pEngineWrite(peer, region, memory, sizeof(memory), remote, &id) != 0)
    return failed("cannot write");
  if (!done(peer, id))
    return 1;
  if (flagcxP2pEngineRead(peer, region, memory, sizeof(memory), remote, &id) != 0)
    return failed("cannot read");
  if (!done(peer, id))
    return 1;
  std::printf("written and read back: %s\n", memory);
  return 0;
}

int main(int argc, char **argv) {
  const bool receives = argc == 2 && std::strcmp(argv[1], "receive") == 0;
  const uint64_t address = argc == 4 && std::strcmp(argv[1], "send") == 0 ? std::strtoull(argv[3], nullptr, 16) : 0;
  if (!receives && address == 0) {
    std::fprintf(stderr, "usage: hello receive | hello send HOST:PORT ADDRESS\n");
    return 2;
  }
  FlagcxP2pEngine *engine = flagcxP2pEngineCreate();
  FlagcxP2pMr region = 0;
  if (engine == nullptr)
    return failed("no engine");
  // Memory registered before a peer connects is announced to it.
  int status = flagcxP2pEngineReg(engine, reinterpret_cast<uintptr_t>(memory), sizeof(memory), region);
  status = status != 0 ? failed("cannot register")
           : receives  ? receive(engine)
                       : send(engine, region, argv[2], address);
  flagcxP2pEngineDestroy(engine);
  return status;
}
