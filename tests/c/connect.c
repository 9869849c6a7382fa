/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection of two engines of one process, and single transfers over both of its ends. */
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
