/* SPDX-License-Identifier: Apache-2.0
 *
 * Invalid arguments of the functions in C form: each call is refused with the reason, writes no output and moves no
 * byte, and the connection still works. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "support.h"

#define UNTOUCHED 0x1122334455667788u

static struct Pair pair;
static uint64_t id;

/* `call` answers -1, and its reason contains `reason`. */
#define REFUSED(call, reason)                                          \
  do {                                                                 \
    id = UNTOUCHED;                                                    \
    (void)flagcxP2pEngineXferCancel(NULL, 0); /* another last error */ \
    refusal(#call, (call), reason, __LINE__);                          \
  } while (0)
/* `call` answers NULL. */
#define REFUSED_POINTER(call, reason) REFUSED((call) == NULL ? -1 : 0, reason)

static void refusal(const char *call, int answer, const char *reason, int line) {
  const char *const given = flagcxP2pEngineLastError();
  if (answer == -1 && id == UNTOUCHED && strstr(given, reason) != NULL)
    return;
  fprintf(stderr, "%s answers %d for '%s'\n", call, answer, given);
  check(false, reason, __FILE__, line);
}

static void refuseHandles(void) {
  FlagcxP2pEngine *const engine = pair.client;
  char text[16] = "untouched";
  int gpu = 7;
  size_t needed = 7;
  REFUSED(flagcxP2pCEngineGetRpcPort(NULL), "flagcxP2pEngineGetRpcPort: engine is NULL");
  REFUSED(flagcxP2pCEngineStartRpcServer(NULL), "flagcxP2pEngineStartRpcServer: engine is NULL");
  REFUSED(flagcxP2pCEngineGetMetadata(NULL, text, 16, &needed), "flagcxP2pEngineGetMetadata: engine is NULL");
  REFUSED(flagcxP2pCEngineGetMetadata(engine, NULL, 16, &needed), "flagcxP2pCEngineGetMetadata: text is NULL");
  REFUSED(flagcxP2pCEngineGetMetadata(engine, text, 16, NULL), "flagcxP2pCEngineGetMetadata: needed is NULL");
  REFUSED_POINTER(flagcxP2pCEngineConnect(NULL, "127.0.0.1", 0, 1, false), "engine is NULL");
  REFUSED_POINTER(flagcxP2pCEngineConnect(engine, NULL, 0, 1, false), "ipAddr is NULL");
  REFUSED_POINTER(flagcxP2pCEngineConnect(engine, "127.0.0.1", 0, 0, false), "port 0 is not within 1..=65535");
  REFUSED_POINTER(flagcxP2pCEngineConnect(engine, "127.0.0.1", 0, 65536, false), "port 65536 is not within");
  REFUSED_POINTER(flagcxP2pCEngineConnect(engine, "127.0.0.1", 0, 1, false), "refused");
  REFUSED_POINTER(flagcxP2pCEngineConnect(engine, "256.256.256.256", 0, 1, false), "256.256.256.256");
  REFUSED_POINTER(flagcxP2pCEngineAccept(NULL, text, 16, &gpu), "engine is NULL");
  REFUSED_POINTER(flagcxP2pCEngineAccept(engine, NULL, 16, &gpu), "ipAddrBuf is NULL");
  REFUSED_POINTER(flagcxP2pCEngineAccept(engine, text, 16, NULL), "remoteGpuIdx is NULL");
  REFUSED_POINTER(flagcxP2pCEngineGetConn(NULL, "127.0.0.1:1"), "engine is NULL");
  REFUSED_POINTER(flagcxP2pCEngineGetConn(engine, NULL), "session is NULL");
  REFUSED_POINTER(flagcxP2pCEngineGetConn(engine, "127.0.0.1"), "malformed session");
  CHECK(strcmp(text, "untouched") == 0 && gpu == 7 && needed == 7);
}

static void refuseMemory(void) {
  FlagcxP2pEngine *const engine = pair.client;
  const uint64_t there = (uintptr_t)pair.remote;
  FlagcxP2pRdmaDesc desc;
  memset(&desc, 0x5a, sizeof(desc));
  const FlagcxP2pRdmaDesc before = desc;
  REFUSED(flagcxP2pEngineRegFlags(NULL, 4096, 4096, 0, &id), "engine is NULL");
  REFUSED(flagcxP2pEngineRegFlags(engine, 0, 4096, 0, &id), "data is NULL");
  REFUSED(flagcxP2pEngineRegFlags(engine, 4096, 4096, 0, &id), "EFAULT");
  REFUSED(flagcxP2pEngineRegFlags(engine, (uintptr_t)pair.local, 64, 0x8000, &id), "0x8000");
  REFUSED(flagcxP2pEngineRegFlags(engine, (uintptr_t)pair.local, 64, 0, NULL), "mrId is NULL");
  REFUSED(flagcxP2pCEnginePrepareDesc(NULL, 1, pair.local, 64, &desc), "engine is NULL");
  REFUSED(flagcxP2pCEnginePrepareDesc(engine, pair.localMr, NULL, 64, &desc), "data is NULL");
  REFUSED(flagcxP2pCEnginePrepareDesc(engine, pair.localMr, pair.local, 64, NULL), "desc is NULL");
  REFUSED(flagcxP2pCEnginePrepareDesc(engine, 0, pair.local, 64, &desc), "flagcxP2pEnginePrepareDesc: ");
  REFUSED(flagcxP2pCEnginePrepareDesc(engine, pair.remoteMr, pair.remote, 64, &desc), "flagcxP2pEnginePrepareDesc: ");
  REFUSED(flagcxP2pCEnginePrepareDesc(engine, pair.localMr, pair.local, BUFFER_BYTES + 1, &desc),
          "flagcxP2pEnginePrepareDesc: ");
  REFUSED(flagcxP2pCEngineMakeDesc(NULL, there, 64, &desc), "conn is NULL");
  REFUSED(flagcxP2pCEngineMakeDesc(pair.conn, there, 64, NULL), "desc is NULL");
  REFUSED(flagcxP2pCEngineMakeDesc(pair.conn, 4096, 64, &desc), "the peer announced no region that holds 0x1000+64");
  CHECK(memcmp(&desc, &before, sizeof(desc)) == 0);

  desc = remoteDesc(&pair, 4096, 64);
  const FlagcxP2pRdmaDesc whole = desc;
  REFUSED(flagcxP2pCEngineUpdateDesc(NULL, there, 64), "flagcxP2pCEngineUpdateDesc: desc is NULL");
  REFUSED(flagcxP2pCEngineUpdateDesc(&desc, whole.addr + 1, 64), "the range is not inside the descriptor's");
  REFUSED(flagcxP2pCEngineUpdateDesc(&desc, whole.addr - 1, 1), "the range is not inside the descriptor's");
  REFUSED(flagcxP2pCEngineUpdateDesc(&desc, UINT64_MAX, UINT32_MAX), "the range is not inside the descriptor's");
  CHECK(memcmp(&desc, &whole, sizeof(desc)) == 0);

  char ipc[FLAGCX_P2P_IPC_INFO_SIZE] = {0};
  bool has = true;
  REFUSED(flagcxP2pCEngineGetIpcInfo(engine, there, NULL, &has), "ipcBuf is NULL");
  REFUSED(flagcxP2pCEngineGetIpcInfo(engine, there, ipc, NULL), "hasIpc is NULL");
  REFUSED(flagcxP2pCEngineGetIpcInfo(engine, 4096, ipc, &has), "no region holds 0x1000");
  REFUSED(flagcxP2pCEngineUpdateIpcInfo(NULL, 1, 1, 1), "ipcBuf is NULL");
  REFUSED(flagcxP2pCEngineUpdateIpcInfo(ipc, 1, 2, 1), "addr lies before baseAddr");
  CHECK(!has);
  /* These have no answer. */
  flagcxP2pCEngineMrDestroy(NULL, pair.localMr);
  flagcxP2pCEngineMrDestroy(engine, 0);
  flagcxP2pCEngineMrDestroy(engine, pair.remoteMr);
}

static void refuseReads(void) {
  FlagcxP2pConn *const c = pair.conn;
  const FlagcxP2pRdmaDesc d = remoteDesc(&pair, 0, 64);
  uint8_t *const p = pair.local;
  REFUSED(flagcxP2pCEngineRead(NULL, 0, p, 64, &d, &id), "flagcxP2pEngineRead: conn is NULL");
  REFUSED(flagcxP2pCEngineRead(c, 0, NULL, 64, &d, &id), "flagcxP2pEngineRead: data is NULL");
  REFUSED(flagcxP2pCEngineRead(c, 0, p, 64, NULL, &id), "flagcxP2pCEngineRead: desc is NULL");
  REFUSED(flagcxP2pCEngineRead(c, 0, p, 64, &d, NULL), "flagcxP2pEngineRead: transferId is NULL");
  REFUSED(flagcxP2pCEngineRead(c, 0, p, 65, &d, &id), "remote");
  REFUSED(flagcxP2pCEngineRead(c, 0, p + BUFFER_BYTES - 1, 64, &d, &id), "local");
  REFUSED(flagcxP2pCEngineRead(c, 0, p + 1, SIZE_MAX, &d, &id), "piece 0");
  REFUSED(flagcxP2pCEngineWrite(NULL, 0, p, 64, &d, &id), "flagcxP2pEngineWrite: conn is NULL");
  REFUSED(flagcxP2pCEngineWrite(c, 0, NULL, 64, &d, &id), "flagcxP2pEngineWrite: data is NULL");
  REFUSED(flagcxP2pCEngineWrite(c, 0, p, 64, NULL, &id), "flagcxP2pCEngineWrite: desc is NULL");
  REFUSED(flagcxP2pCEngineWrite(c, 0, p, 64, &d, NULL), "flagcxP2pEngineWrite: transferId is NULL");
  REFUSED(flagcxP2pCEngineWrite(c, 0, p, 65, &d, &id), "remote");
  REFUSED(flagcxP2pCEngineWrite(c, 0, p + BUFFER_BYTES - 1, 64, &d, &id), "local");
}

typedef int (*StartVector)(FlagcxP2pConn *, const uint64_t *, void *const *, const size_t *,
                           const FlagcxP2pRdmaDesc *, size_t, uint64_t *, char *const *);

static void refuseVectors(StartVector start) {
  FlagcxP2pConn *const c = pair.conn;
  const uint64_t r[] = {pair.localMr, pair.localMr}, unknown[] = {pair.localMr, 987654321};
  void *const a[] = {pair.local, pair.local}, *const null[] = {pair.local, NULL};
  const size_t s[] = {64, 64}, longer[] = {64, 65};
  const FlagcxP2pRdmaDesc d[] = {remoteDesc(&pair, 0, 64), remoteDesc(&pair, 64, 64)};
  REFUSED(start(NULL, r, a, s, d, 2, &id, NULL), "conn is NULL");
  REFUSED(start(c, NULL, a, s, d, 2, &id, NULL), "mrIds is NULL");
  REFUSED(start(c, r, NULL, s, d, 2, &id, NULL), "the array of local addresses is NULL");
  REFUSED(start(c, r, a, NULL, d, 2, &id, NULL), "sizes is NULL");
  REFUSED(start(c, r, a, s, NULL, 2, &id, NULL), "descs is NULL");
  REFUSED(start(c, r, a, s, d, 2, NULL, NULL), "transferId is NULL");
  REFUSED(start(c, r, a, s, d, 0, &id, NULL), "at least one piece, got 0");
  REFUSED(start(c, r, a, s, d, (size_t)INT_MAX + 1, &id, NULL), "at most 2147483647 pieces, got 2147483648");
  REFUSED(start(c, r, a, s, d, SIZE_MAX, &id, NULL), "at most 2147483647 pieces");
  REFUSED(start(c, unknown, a, s, d, 2, &id, NULL), "piece 1");
  REFUSED(start(c, r, null, s, d, 2, &id, NULL), "piece 1");
  REFUSED(start(c, r, a, longer, d, 2, &id, NULL), "piece 1");
}

static void refuseSync(void) {
  FlagcxP2pConn *const c = pair.conn;
  const uint64_t r = pair.localMr;
  void *const a = pair.local;
  const size_t s = 64;
  const FlagcxP2pRdmaDesc d = remoteDesc(&pair, 0, 63);
  REFUSED(flagcxP2pCEngineWriteVectorSync(NULL, &r, &a, &s, &d, 1), "flagcxP2pCEngineWriteVectorSync: conn is NULL");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, NULL, &a, &s, &d, 1), "flagcxP2pCEngineWriteVectorSync: mrIds is NULL");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, &r, NULL, &s, &d, 1), "the array of local addresses is NULL");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, &r, &a, NULL, &d, 1), "sizes is NULL");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, &r, &a, &s, NULL, 1), "descs is NULL");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, &r, &a, &s, &d, 1), "piece 0");
  REFUSED(flagcxP2pCEngineWriteVectorSync(c, &r, &a, &s, &d, SIZE_MAX), "at most 2147483647 pieces");
  const uint64_t remote = d.addr;
  uint64_t id = 0;
  REFUSED(flagcxP2pEngineTryWriteVector(c, &r, &a, &s, &d, SIZE_MAX, &id), "at most 2147483647 pieces");
  REFUSED(flagcxP2pEngineTryReadRanges(c, &r, &a, &s, &remote, SIZE_MAX, &id), "at most 2147483647 pieces");
  uint32_t state = 0;
  size_t ended = 0;
  REFUSED(flagcxP2pEngineTestBatch(c, &id, SIZE_MAX, &state, &ended), "at most 2147483647 pieces");
}

static void refuseTheRest(void) {
  FlagcxP2pNotifyMsg message = {.name = "to", .msg = "none"};
  FlagcxP2pXferResult result = {.size = 0};
  REFUSED(flagcxP2pCEngineSendNotif(NULL, &message), "flagcxP2pEngineSendNotif: conn is NULL");
  REFUSED(flagcxP2pCEngineSendNotif(pair.conn, NULL), "flagcxP2pEngineSendNotif: notifyMsg is NULL");
  REFUSED(flagcxP2pEngineSendNotifBytes(pair.conn, NULL, "x", 1), "name is NULL");
  REFUSED(flagcxP2pEngineSendNotifBytes(pair.conn, "x", NULL, 1), "content is NULL");
  REFUSED(flagcxP2pEngineXferResult(pair.conn, 0, NULL), "out is NULL");
  REFUSED(flagcxP2pEngineXferResult(pair.conn, 0, &result), "the struct's size is not set");
  REFUSED(flagcxP2pEngineXferCancel(pair.conn, 0xdeadbeef), "0xdeadbeef");
  CHECK(flagcxP2pCEngineXferStatus(NULL, 1));
  CHECK(flagcxP2pCEngineXferStatus(pair.conn, 0xdeadbeef));
}

void refuseBadInput(void) {
  pair = openPair();
  static uint8_t local[BUFFER_BYTES], remote[BUFFER_BYTES];
  memcpy(local, pair.local, BUFFER_BYTES);
  memcpy(remote, pair.remote, BUFFER_BYTES);
  refuseHandles();
  refuseMemory();
  refuseReads();
  refuseVectors(flagcxP2pCEngineReadVector);
  refuseVectors(flagcxP2pCEngineWriteVector);
  refuseSync();
  refuseTheRest();
  CHECK(memcmp(local, pair.local, BUFFER_BYTES) == 0 && memcmp(remote, pair.remote, BUFFER_BYTES) == 0);
  const FlagcxP2pRdmaDesc desc = remoteDesc(&pair, 0, 64);
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, 0, pair.local, 64, &desc, &id) == 0);
  CHECK(isDone(pair.conn, id) && memcmp(pair.local, pair.remote, 64) == 0);
  closePair(&pair);
}
