/* SPDX-License-Identifier: Apache-2.0 */
#include "support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As cpp/src/abi.cc has them for C++. */
#define LAYOUT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type " " #field)
_Static_assert(sizeof(FlagcxP2pRdmaDesc) == FLAGCX_P2P_DESC_SIZE, "a descriptor is its serialized form");
LAYOUT(FlagcxP2pRdmaDesc, addr, 0);
LAYOUT(FlagcxP2pRdmaDesc, size, 8);
LAYOUT(FlagcxP2pRdmaDesc, rkey, 12);
LAYOUT(FlagcxP2pRdmaDesc, nmsgs, 16);
LAYOUT(FlagcxP2pRdmaDesc, rid, 20);
LAYOUT(FlagcxP2pRdmaDesc, idx, 24);
LAYOUT(FlagcxP2pRdmaDesc, padding, 32);
_Static_assert(sizeof(FlagcxP2pNotifyMsg) == 512, "both fields, nothing between");
LAYOUT(FlagcxP2pNotifyMsg, msg, 256);
_Static_assert(sizeof(FlagcxP2pSlowTransfer) == 136, "as Python has it");
_Static_assert(sizeof(FlagcxP2pRailInfo) == 256, "as in C++");
_Static_assert(sizeof(FlagcxP2pXferResult) == 256 && sizeof(FlagcxP2pConnInfo) == 88, "as in C++");

static atomic_int failed; /* written by every thread that checks, read at the end */

bool check(bool holds, const char *condition, const char *file, int line) {
  if (!holds) {
    fprintf(stderr, "%s:%d: not so: %s; last error: %s\n", file, line, condition, flagcxP2pEngineLastError());
    atomic_fetch_add(&failed, 1);
  }
  return holds;
}

void endProgram(void) {
  exit(1);
}

int failures(void) {
  return atomic_load(&failed);
}

void fill(uint8_t *data, size_t bytes, uint32_t seed) {
  uint32_t state = seed * 2654435761u + 1;
  for (size_t i = 0; i < bytes; ++i) {
    state = state * 1664525u + 1013904223u;
    data[i] = (uint8_t)(state >> 24);
  }
}

bool isDone(FlagcxP2pConn *conn, uint64_t transferId) {
  FlagcxP2pXferResult result = {.size = sizeof(result)};
  const int answer = flagcxP2pEngineXferWait(conn, transferId, 10000, &result);
  if (answer == 0 && result.state == FLAGCX_P2P_XFER_DONE)
    return true;
  fprintf(stderr, "transfer %llu: answer %d, state %u, piece %llu, %s\n", (unsigned long long)transferId, answer,
          result.state, (unsigned long long)result.iov, result.reason);
  return false;
}

uint64_t registerMemory(FlagcxP2pEngine *engine, const void *data, size_t bytes) {
  uint64_t mrId = 0;
  REQUIRE(flagcxP2pEngineRegFlags(engine, (uintptr_t)data, bytes, FLAGCX_P2P_REG_HOST, &mrId) == 0);
  REQUIRE(mrId != 0);
  return mrId;
}

void sessionOf(FlagcxP2pEngine *engine, char session[64]) {
  snprintf(session, 64, "127.0.0.1:%d", flagcxP2pCEngineGetRpcPort(engine));
}

static void *acceptOne(void *context) {
  struct Pair *const pair = context;
  pair->accepted = flagcxP2pCEngineAccept(pair->server, pair->peerAddress, sizeof(pair->peerAddress), &pair->peerGpu);
  REQUIRE(pair->accepted != NULL);
  return NULL;
}

struct Pair openPair(void) {
  struct Pair pair = {.client = flagcxP2pCEngineCreate(), .server = flagcxP2pCEngineCreate(), .peerGpu = -2};
  REQUIRE(pair.client != NULL && pair.server != NULL);
  pair.local = malloc(BUFFER_BYTES);
  pair.remote = malloc(BUFFER_BYTES);
  REQUIRE(pair.local != NULL && pair.remote != NULL);
  fill(pair.local, BUFFER_BYTES, 1);
  fill(pair.remote, BUFFER_BYTES, 2);
  pair.localMr = registerMemory(pair.client, pair.local, BUFFER_BYTES);
  pair.remoteMr = registerMemory(pair.server, pair.remote, BUFFER_BYTES);
  const int port = flagcxP2pCEngineGetRpcPort(pair.server);
  pthread_t acceptor;
  REQUIRE(pthread_create(&acceptor, NULL, acceptOne, &pair) == 0);
  pair.conn = flagcxP2pCEngineConnect(pair.client, "127.0.0.1", 0, port, false);
  REQUIRE(pair.conn != NULL);
  REQUIRE(pthread_join(acceptor, NULL) == 0);
  return pair;
}

void closePair(struct Pair *pair) {
  flagcxP2pCEngineConnDestroy(pair->conn);
  flagcxP2pCEngineConnDestroy(pair->accepted);
  flagcxP2pCEngineMrDestroy(pair->client, pair->localMr);
  flagcxP2pCEngineMrDestroy(pair->server, pair->remoteMr);
  flagcxP2pCEngineDestroy(pair->client);
  flagcxP2pCEngineDestroy(pair->server);
  free(pair->local);
  free(pair->remote);
}

FlagcxP2pRdmaDesc remoteDesc(const struct Pair *pair, size_t offset, size_t bytes) {
  FlagcxP2pRdmaDesc desc;
  REQUIRE(flagcxP2pCEnginePrepareDesc(pair->server, pair->remoteMr, pair->remote + offset, bytes, &desc) == 0);
  return desc;
}
