/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that the engine owns, its metadata, and the end of accepting. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "support.h"

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
