/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory: allocated by the engine, and registered by a descriptor of the caller. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

enum { BYTES = 1 << 16 };

/* Moves all of `memory` to the server's buffer and back. */
static void moveThere(const struct Pair *pair, uint8_t *memory, uint64_t mrId, uint32_t seed) {
  static uint8_t expected[BYTES];
  const FlagcxP2pRdmaDesc desc = remoteDesc(pair, 0, BYTES);
  uint64_t id = 0;
  fill(expected, BYTES, seed);
  memcpy(memory, expected, BYTES);
  REQUIRE(flagcxP2pCEngineWrite(pair->conn, mrId, memory, BYTES, &desc, &id) == 0);
  CHECK(isDone(pair->conn, id) && memcmp(pair->remote, expected, BYTES) == 0);
  memset(memory, 0, BYTES);
  REQUIRE(flagcxP2pCEngineRead(pair->conn, mrId, memory, BYTES, &desc, &id) == 0);
  CHECK(isDone(pair->conn, id) && memcmp(memory, expected, BYTES) == 0);
}

void shareMemory(void) {
  struct Pair pair = openPair();
  void *memory = NULL;
  uint64_t mrId = 0;
  REQUIRE(flagcxP2pEngineAllocShared(pair.client, BYTES, 0, &memory, &mrId) == 0);
  moveThere(&pair, memory, mrId, 21);
  CHECK(flagcxP2pEngineFreeShared(pair.client, memory) == 0);
  CHECK(flagcxP2pEngineFreeShared(pair.client, memory) == -1);

  FILE *const file = tmpfile();
  REQUIRE(file != NULL && ftruncate(fileno(file), BYTES) == 0);
  memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
  REQUIRE(memory != MAP_FAILED);
  CHECK(flagcxP2pEngineRegShared(pair.client, (uintptr_t)memory, BYTES, fileno(file), 1, 0, &mrId) == -1);
  REQUIRE(flagcxP2pEngineRegShared(pair.client, (uintptr_t)memory, BYTES, fileno(file), 0, 0, &mrId) == 0);
  fclose(file);
  moveThere(&pair, memory, mrId, 22);
  flagcxP2pCEngineMrDestroy(pair.client, mrId);
  munmap(memory, BYTES);
  closePair(&pair);
}
