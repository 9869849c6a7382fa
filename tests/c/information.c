/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program learns of the library, the fabric, its metrics, a GPU runtime of its own, and transfers that do not end. */
#include <stdlib.h>
#include <string.h>

#include "support.h"

/* One byte less than is needed is refused, and nothing written. */
static void readMetrics(void) {
  size_t needed = 0;
  REQUIRE(flagcxP2pMetricsText(NULL, 0, &needed) == 1 && needed > 100);
  /* Room for what may be counted in between. */
  const size_t room = needed + 4096;
  char *const text = calloc(1, room);
  REQUIRE(text != NULL);
  CHECK(flagcxP2pMetricsText(text, 8, &needed) == 1 && text[0] == 0);
  REQUIRE(flagcxP2pMetricsText(text, room, &needed) == 0);
  CHECK(strlen(text) + 1 == needed && strstr(text, "# TYPE flagcx_p2p_") != NULL);
  CHECK(flagcxP2pMetricsText(text, room, NULL) == -1);
  free(text);
}

static int gpus = 0; /* written before the engines that read it are created */

static int countGpus(int *count) {
  *count = gpus;
  return 0;
}

/* A table that has no callback but one: engines are created over it, and all memory is host memory. */
static void installTable(void) {
  FlagcxP2pDeviceTable table = {.size = sizeof(table), .getDeviceCount = countGpus};
  gpus = 1;
  REQUIRE(flagcxP2pSetDeviceTable(&table) == 0);
  struct Pair pair = openPair();
  const FlagcxP2pRdmaDesc desc = remoteDesc(&pair, 0, BUFFER_BYTES);
  uint64_t id = 0;
  REQUIRE(flagcxP2pCEngineWrite(pair.conn, pair.localMr, pair.local, BUFFER_BYTES, &desc, &id) == 0);
  CHECK(isDone(pair.conn, id) && memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);
  closePair(&pair);
  CHECK(flagcxP2pSetDeviceTable(NULL) == 0);
  table.size = 0;
  CHECK(flagcxP2pSetDeviceTable(&table) == -1 && strlen(flagcxP2pEngineLastError()) > 0);
}

void askForInformation(void) {
  const char *const version = flagcxP2pVersion();
  CHECK(version != NULL && strchr(version, '.') != NULL);
  FlagcxP2pFabricInfo fabric = {.size = sizeof(fabric)};
  REQUIRE(flagcxP2pGetFabricInfo(&fabric) == 0);
  CHECK(fabric.size == sizeof(fabric) && fabric.devices > 0);
  CHECK(strcmp(fabric.provider, "software") == 0 && fabric.reason[0] != 0);
  CHECK(flagcxP2pGetFabricInfo(NULL) == -1);
  readMetrics();
  installTable();
}

void findSlowTransfers(void) {
  /* Each work request waits for so long. */
  REQUIRE(setenv("FLAGCX_P2P_FAULTS", "delay=us:400000", 1) == 0);
  struct Pair pair = openPair();
  const FlagcxP2pRdmaDesc desc = remoteDesc(&pair, 0, BUFFER_BYTES);
  FlagcxP2pSlowTransfer slow[2] = {{.size = sizeof(slow[0])}};
  size_t count = 7;
  CHECK(flagcxP2pEngineGetSlowTransfers(pair.client, 0, NULL, 0, &count) == 0 && count == 0);
  uint64_t id = 0;
  REQUIRE(flagcxP2pEngineTryReadVector(pair.conn, &pair.localMr, (void *const[]){pair.local},
                                       (const size_t[]){BUFFER_BYTES}, &desc, 1, &id) == 0);
  /* Found once a worker has looked at its age. */
  for (int i = 0; i < 100000 && count == 0; ++i)
    REQUIRE(flagcxP2pEngineGetSlowTransfers(pair.client, 0, slow, 2, &count) == 0);
  CHECK(count == 1 && slow[0].size == sizeof(slow[0]) && slow[0].transferId == id);
  CHECK(slow[0].isRead == 1 && slow[0].bytes == BUFFER_BYTES && slow[0].piecesDone < slow[0].pieces);
  CHECK(strcmp(slow[0].path, "in-process") == 0 && strncmp(slow[0].peer, "127.0.0.1:", 10) == 0);
  CHECK(flagcxP2pEngineGetSlowTransfers(pair.client, 3600000, slow, 2, &count) == 0 && count == 0);
  CHECK(isDone(pair.conn, id) && memcmp(pair.local, pair.remote, BUFFER_BYTES) == 0);
  CHECK(flagcxP2pEngineGetSlowTransfers(pair.client, 0, slow, 2, &count) == 0 && count == 0);
  closePair(&pair);
}
