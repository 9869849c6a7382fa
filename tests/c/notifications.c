/* SPDX-License-Identifier: Apache-2.0
 *
 * Notifications of both kinds, by callback and as one block. */
#include <stdlib.h>
#include <string.h>

#include "support.h"

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
