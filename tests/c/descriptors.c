/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors: prepared, looked up, narrowed, sent. */
#include <string.h>

#include "support.h"

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
