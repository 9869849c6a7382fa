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

/* The one rail of a connection over the software fabric, after `written` bytes. */
static void checkRails(FlagcxP2pConn *conn, uint64_t written) {
  FlagcxP2pRailInfo rails[FLAGCX_P2P_MAX_RAILS] = {{.size = sizeof(rails[0])}};
  size_t count = 0;
  REQUIRE(flagcxP2pEngineGetRails(conn, rails, FLAGCX_P2P_MAX_RAILS, &count) == 0 && count == 1);
  CHECK(rails[0].state == FLAGCX_P2P_RAIL_UP && rails[0].healthyLanes == infoOf(conn).lanes);
  CHECK(rails[0].writtenBytes == written && rails[0].inFlightBytes == 0 && rails[0].nic[0] != 0);
  CHECK(rails[0].pauses == 0 && rails[0].lastPause == FLAGCX_P2P_RAIL_NEVER_PAUSED && rails[0].movedParts == 0);
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
  checkRails(pair.conn, 0);
  const FlagcxP2pConnInfo info = infoOf(pair.conn);
  CHECK(info.local == 1 && info.ours == 1 && info.healthyLanes == info.lanes);

  FlagcxP2pRdmaDesc desc = remoteDesc(&pair, 0, BUFFER_BYTES);
  uint64_t id = 0;
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, pair.localMr, pair.local, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(isDone(pair.conn, id));
  CHECK(memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);
  checkRails(pair.conn, BUFFER_BYTES);

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

  /* A region that the server does not have: the transfer fails, with the reason. */
  desc = remoteDesc(&pair, 0, 4096);
  desc.rkey = ~desc.rkey;
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, 0, pair.local, 4096, &desc, &id) == 0);
  result.size = sizeof(result);
  CHECK(flagcxP2pEngineXferWait(pair.conn, id, 10000, &result) == 0);
  CHECK(result.state == FLAGCX_P2P_XFER_FAILED && result.status == 10 && result.reason[0] != '\0');
  CHECK(flagcxP2pCEngineXferStatus(pair.conn, id));
  closePair(&pair);
}
