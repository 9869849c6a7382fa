/* SPDX-License-Identifier: Apache-2.0
 *
 * Transfers of many pieces between two engines of one process, and many transfers at a time. */
#include <string.h>

#include "support.h"

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
