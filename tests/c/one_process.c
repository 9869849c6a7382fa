/* SPDX-License-Identifier: Apache-2.0
 *
 * Two engines of one process. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static FlagcxP2pConnInfo infoOf(FlagcxP2pConn *conn) {
  FlagcxP2pConnInfo info = {.size = sizeof(info)};
  CHECK(flagcxP2pEngineGetConnInfo(conn, &info) == 0);
  return info;
}

/* Polls as a program does that asks for no outcome. */
static bool ends(FlagcxP2pConn *conn, uint64_t id) {
  for (long i = 0; i < 100000000; ++i) {
    if (flagcxP2pCEngineXferStatus(conn, id))
      return true;
  }
  return false;
}

void connectAndMove(void) {
  struct Pair pair = openPair();
  CHECK(strcmp(pair.peerAddress, "127.0.0.1") == 0);
  CHECK(pair.peerGpu >= -1);
  const FlagcxP2pConnInfo info = infoOf(pair.conn);
  CHECK(info.local == 1 && info.ours == 1 && info.healthyLanes == info.lanes);

  FlagcxP2pRdmaDesc desc = remoteDesc(&pair, 0, BUFFER_BYTES);
  uint64_t id = 0;
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, pair.localMr, pair.local, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(isDone(pair.conn, id));
  CHECK(memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);

  fill(pair.remote, BUFFER_BYTES, 3);
  REQUIRE(flagcxP2pCEngineRead(pair.conn, 0, pair.local, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(ends(pair.conn, id));
  CHECK(memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);

  /* From the accepted end. */
  fill(pair.remote, BUFFER_BYTES, 4);
  REQUIRE(flagcxP2pCEngineMakeDesc(pair.accepted, (uintptr_t)pair.local, BUFFER_BYTES, &desc) == 0);
  REQUIRE(flagcxP2pCEngineWrite(pair.accepted, pair.remoteMr, pair.remote, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(isDone(pair.accepted, id));
  CHECK(memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);

  /* Whether the bytes or the cancelling come first is open; that it has ended is not. */
  FlagcxP2pXferResult result = {.size = sizeof(result)};
  REQUIRE(flagcxP2pCEngineWrite(pair.accepted, 0, pair.remote, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(flagcxP2pEngineXferCancel(pair.accepted, id) == 0);
  CHECK(flagcxP2pEngineXferResult(pair.accepted, id, &result) == 0);
  CHECK(result.state == FLAGCX_P2P_XFER_DONE || result.state == FLAGCX_P2P_XFER_CANCELLED);

  /* A deregistered region: the transfer fails, with the reason. */
  uint8_t *const gone = malloc(4096);
  REQUIRE(gone != NULL);
  const uint64_t mrId = registerMemory(pair.server, gone, 4096);
  REQUIRE(flagcxP2pCEnginePrepareDesc(pair.server, mrId, gone, 4096, &desc) == 0);
  flagcxP2pCEngineMrDestroy(pair.server, mrId);
  free(gone);
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, 0, pair.local, 4096, &desc, &id) == 0);
  result.size = sizeof(result);
  CHECK(flagcxP2pEngineXferWait(pair.conn, id, 10000, &result) == 0);
  CHECK(result.state == FLAGCX_P2P_XFER_FAILED && result.status == 10 && result.reason[0] != '\0');
  CHECK(flagcxP2pCEngineXferStatus(pair.conn, id));
  closePair(&pair);
}

enum { PIECES = 64, PIECE_BYTES = 1000 };

/* The pieces of a transfer, as parallel arrays: local piece i is remote piece PIECES - 1 - i. */
struct Vectors {
  uint64_t mrIds[PIECES];
  void *local[PIECES];
  size_t sizes[PIECES];
  FlagcxP2pRdmaDesc descs[PIECES];
  uint64_t remote[PIECES];
};

static void describe(const struct Pair *pair, struct Vectors *to) {
  for (size_t i = 0; i < PIECES; ++i) {
    const size_t there = (PIECES - 1 - i) * 4096;
    to->mrIds[i] = pair->localMr;
    to->local[i] = pair->local + i * 4096;
    to->sizes[i] = PIECE_BYTES;
    to->descs[i] = remoteDesc(pair, there, PIECE_BYTES);
    to->remote[i] = (uintptr_t)pair->remote + there;
  }
}

/* Whether the pieces are equal at both ends, and nothing beside them was written. */
static bool piecesMoved(const struct Pair *pair) {
  for (size_t i = 0; i < PIECES; ++i) {
    const uint8_t *const here = pair->local + i * 4096, *const there = pair->remote + (PIECES - 1 - i) * 4096;
    if (memcmp(here, there, PIECE_BYTES) != 0 || here[PIECE_BYTES] != 0x11 || there[PIECE_BYTES] != 0x22)
      return false;
  }
  return true;
}

/* New bytes at both ends, all different. */
static void scramble(const struct Pair *pair, uint32_t seed) {
  memset(pair->local, 0x11, BUFFER_BYTES);
  memset(pair->remote, 0x22, BUFFER_BYTES);
  for (size_t i = 0; i < PIECES; ++i) {
    fill(pair->local + i * 4096, PIECE_BYTES, seed + (uint32_t)i);
    fill(pair->remote + i * 4096, PIECE_BYTES, seed + PIECES + (uint32_t)i);
  }
}

void moveVectors(void) {
  struct Pair pair = openPair();
  FlagcxP2pConn *const conn = pair.conn;
  struct Vectors v;
  describe(&pair, &v);
  uint64_t id = 0;
  scramble(&pair, 1000);
  CHECK(!piecesMoved(&pair));
  REQUIRE(flagcxP2pCEngineWriteVector(conn, v.mrIds, v.local, v.sizes, v.descs, PIECES, &id, NULL) == 0);
  CHECK(isDone(conn, id) && piecesMoved(&pair));
  scramble(&pair, 2000);
  REQUIRE(flagcxP2pCEngineReadVector(conn, v.mrIds, v.local, v.sizes, v.descs, PIECES, &id, NULL) == 0);
  CHECK(isDone(conn, id) && piecesMoved(&pair));
  scramble(&pair, 3000);
  CHECK(flagcxP2pCEngineWriteVectorSync(conn, v.mrIds, v.local, v.sizes, v.descs, PIECES) == 0);
  CHECK(piecesMoved(&pair));
  CHECK(flagcxP2pCEngineWriteVectorSync(conn, NULL, NULL, NULL, NULL, 0) == 0);
  scramble(&pair, 4000);
  REQUIRE(flagcxP2pEngineTryWriteVector(conn, v.mrIds, v.local, v.sizes, v.descs, PIECES, &id) == 0);
  CHECK(isDone(conn, id) && piecesMoved(&pair));
  scramble(&pair, 5000);
  REQUIRE(flagcxP2pEngineTryReadRanges(conn, v.mrIds, v.local, v.sizes, v.remote, PIECES, &id) == 0);
  CHECK(isDone(conn, id) && piecesMoved(&pair));

  /* Many at a time, asked about in one call. */
  uint64_t ids[PIECES];
  uint32_t states[PIECES];
  scramble(&pair, 6000);
  for (size_t i = 0; i < PIECES; ++i)
    REQUIRE(flagcxP2pCEngineWrite(conn, 0, v.local[i], PIECE_BYTES, &v.descs[i], &ids[i]) == 0);
  size_t ended = 0;
  for (long i = 0; i < 10000000 && ended < PIECES; ++i)
    REQUIRE(flagcxP2pEngineTestBatch(conn, ids, PIECES, states, &ended) == 0);
  CHECK(ended == PIECES);
  for (size_t i = 0; i < PIECES; ++i) CHECK(states[i] == FLAGCX_P2P_XFER_DONE);
  CHECK(piecesMoved(&pair));
  closePair(&pair);
}

void makeDescriptors(void) {
  struct Pair pair = openPair();
  FlagcxP2pRdmaDesc prepared = remoteDesc(&pair, 4096, 8192), made, copied;
  CHECK(prepared.addr == (uintptr_t)pair.remote + 4096 && prepared.size == 8192);
  REQUIRE(flagcxP2pCEngineMakeDesc(pair.conn, prepared.addr, prepared.size, &made) == 0);
  CHECK(memcmp(&made, &prepared, sizeof(made)) == 0);

  /* What a peer gets is the 64 bytes. */
  char image[FLAGCX_P2P_DESC_SIZE];
  memcpy(image, &prepared, sizeof(image));
  memcpy(&copied, image, sizeof(copied));
  uint64_t id = 0;
  REQUIRE(flagcxP2pCEngineUpdateDesc(&copied, prepared.addr + 100, 200) == 0);
  CHECK(copied.rkey == prepared.rkey && copied.size == 200);
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, 0, pair.local, 200, &copied, &id) == 0);
  CHECK(isDone(pair.conn, id));
  CHECK(memcmp(pair.remote + 4196, pair.local, 200) == 0);

  /* Of no bytes, at the end of the region. */
  CHECK(flagcxP2pCEnginePrepareDesc(pair.server, pair.remoteMr, pair.remote + BUFFER_BYTES, 0, &made) == 0);
  CHECK(made.size == 0);

  /* Host memory has no information for another process's GPU. */
  char ipc[FLAGCX_P2P_IPC_INFO_SIZE];
  bool hasIpc = true;
  CHECK(flagcxP2pCEngineGetIpcInfo(NULL, (uintptr_t)pair.local, ipc, &hasIpc) == 0 && !hasIpc);
  closePair(&pair);
}

/* What a sink is to see, and how many it has seen. */
struct Expected {
  const char *name;
  const char *content;
  size_t bytes;
  int seen;
};

static void takeOne(void *context, const char *name, const void *content, size_t bytes) {
  struct Expected *const expected = context;
  CHECK(strncmp(name, expected->name, FLAGCX_P2P_MSG_SIZE) == 0);
  CHECK(bytes == expected->bytes && memcmp(content, expected->content, bytes) == 0);
  ++expected->seen;
}

static void awaitOne(FlagcxP2pEngine *engine, struct Expected *expected) {
  for (long i = 0; i < 10000000 && expected->seen == 0; ++i)
    REQUIRE(flagcxP2pEngineGetNotifsOf(engine, takeOne, expected) == 0);
  CHECK(expected->seen == 1);
}

void notify(void) {
  struct Pair pair = openPair();
  FlagcxP2pNotifyMsg fixed = {.name = "fixed", .msg = "of 256 bytes"};
  CHECK(flagcxP2pCEngineSendNotif(pair.conn, &fixed) == (int)sizeof(fixed));
  struct Expected first = {"fixed", fixed.msg, sizeof(fixed.msg), 0};
  awaitOne(pair.server, &first);

  CHECK(flagcxP2pEngineSendNotifBytes(pair.accepted, "exact", "a\0b", 3) == 0);
  struct Expected second = {"exact", "a\0b", 3, 0};
  awaitOne(pair.client, &second);

  CHECK(flagcxP2pEngineSendNotifBytes(pair.conn, "block", "12345", 5) == 0);
  void *block = NULL;
  size_t bytes = 0;
  for (long i = 0; i < 10000000 && bytes == 0; ++i)
    REQUIRE(flagcxP2pEngineTakeNotifs(pair.server, &block, &bytes) == 0);
  REQUIRE(bytes == FLAGCX_P2P_MSG_SIZE + sizeof(uint64_t) + 5);
  uint64_t length = 0;
  memcpy(&length, (char *)block + FLAGCX_P2P_MSG_SIZE, sizeof(length));
  CHECK(strcmp(block, "block") == 0 && length == 5);
  CHECK(memcmp((char *)block + FLAGCX_P2P_MSG_SIZE + sizeof(length), "12345", 5) == 0);
  free(block);
  closePair(&pair);
}

void keepSessions(void) {
  FlagcxP2pEngine *const server = flagcxP2pCEngineCreate(), *const client = flagcxP2pCEngineCreate();
  REQUIRE(server != NULL && client != NULL);
  static uint8_t memory[4096], bytes[4096];
  registerMemory(server, memory, sizeof(memory));
  const uint64_t mrId = registerMemory(client, bytes, sizeof(bytes));
  REQUIRE(flagcxP2pCEngineStartRpcServer(server) == 0 && flagcxP2pCEngineStartRpcServer(server) == 0);
  char session[64], metadata[128], expected[80];
  sessionOf(server, session);
  FlagcxP2pConn *const conn = flagcxP2pCEngineGetConn(client, session);
  REQUIRE(conn != NULL && flagcxP2pCEngineGetConn(client, session) == conn);

  size_t needed = 0;
  CHECK(flagcxP2pCEngineGetMetadata(server, NULL, 0, &needed) == 1 && needed > 1);
  memset(metadata, 'x', sizeof(metadata));
  CHECK(flagcxP2pCEngineGetMetadata(server, metadata, needed - 1, &needed) == 1 && metadata[0] == 'x');
  REQUIRE(flagcxP2pCEngineGetMetadata(server, metadata, needed, &needed) == 0);
  CHECK(strlen(metadata) + 1 == needed && metadata[needed] == 'x');
  snprintf(expected, sizeof(expected), "%s?", session);
  CHECK(strncmp(metadata, expected, strlen(expected)) == 0);

  fill(bytes, sizeof(bytes), 7);
  void *const source = bytes;
  const size_t size = sizeof(bytes);
  const uint64_t address = (uintptr_t)memory;
  uint64_t id = 0;
  REQUIRE(flagcxP2pEngineTryWriteRanges(conn, &mrId, &source, &size, &address, 1, &id) == 0);
  CHECK(isDone(conn, id));
  CHECK(memcmp(memory, bytes, sizeof(memory)) == 0);

  /* The engine owns it. */
  flagcxP2pCEngineConnDestroy(conn);
  CHECK(strstr(flagcxP2pEngineLastError(), "the engine owns the connections of flagcxP2pEngineGetConn") != NULL);
  CHECK(flagcxP2pCEngineGetConn(client, session) == conn);
  flagcxP2pCDumpGlobalConfig();
  flagcxP2pCEngineDestroy(client);
  flagcxP2pCEngineDestroy(server);
  flagcxP2pCEngineDestroy(NULL);
  flagcxP2pCEngineConnDestroy(NULL);
}

static void *acceptNone(void *engine) {
  char address[16] = "untouched";
  int gpu = 7;
  CHECK(flagcxP2pCEngineAccept(engine, address, sizeof(address), &gpu) == NULL);
  CHECK(strcmp(address, "untouched") == 0 && gpu == 7);
  return NULL;
}

void stopAccepting(void) {
  FlagcxP2pEngine *const engine = flagcxP2pCEngineCreate();
  REQUIRE(engine != NULL);
  pthread_t acceptor;
  REQUIRE(pthread_create(&acceptor, NULL, acceptNone, engine) == 0);
  flagcxP2pCEngineStopAccept(engine);
  REQUIRE(pthread_join(acceptor, NULL) == 0);
  acceptNone(engine);
  flagcxP2pCEngineStopAccept(engine);
  flagcxP2pCEngineStopAccept(NULL);
  CHECK(flagcxP2pCEngineGetRpcPort(engine) > 0);
  flagcxP2pCEngineDestroy(engine);
}
