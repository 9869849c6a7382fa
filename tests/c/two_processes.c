/* SPDX-License-Identifier: Apache-2.0
 *
 * Two processes: this program once more, as `c_suite serve`. It prints its port and a descriptor of its memory; over the
 * connection that it accepts it is told the address of memory of the first process, to which it writes in turn. */
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

extern char **environ;

static uint8_t memory[BUFFER_BYTES], expected[BUFFER_BYTES];

enum { FROM_CLIENT = 11, FROM_SERVER = 12 }; /* seeds */

static void takeAddress(void *context, const char *name, const void *content, size_t bytes) {
  CHECK(strcmp(name, "address") == 0 && bytes == sizeof(uint64_t));
  memcpy(context, content, sizeof(uint64_t));
}

static void takeCount(void *context, const char *name, const void *content, size_t bytes) {
  (void)content;
  CHECK(strcmp(name, "written") == 0 && bytes == 0);
  ++*(int *)context;
}

void serve(void) {
  FlagcxP2pEngine *const engine = flagcxP2pCEngineCreate();
  REQUIRE(engine != NULL);
  const uint64_t mrId = registerMemory(engine, memory, sizeof(memory));
  FlagcxP2pRdmaDesc desc;
  REQUIRE(flagcxP2pCEnginePrepareDesc(engine, mrId, memory, sizeof(memory), &desc) == 0);
  printf("%d ", flagcxP2pCEngineGetRpcPort(engine));
  for (size_t i = 0; i < sizeof(desc); ++i) printf("%02x", ((const unsigned char *)&desc)[i]);
  printf("\n");
  fflush(stdout);

  char ip[64];
  int gpu = 0;
  FlagcxP2pConn *const conn = flagcxP2pCEngineAccept(engine, ip, sizeof(ip), &gpu);
  REQUIRE(conn != NULL);
  /* The notification comes after the client's WRITE has ended: its bytes are here. */
  uint64_t address = 0, id = 0;
  while (address == 0) {
    REQUIRE(flagcxP2pEngineGetNotifsOf(engine, takeAddress, &address) == 0);
    usleep(200);
  }
  fill(expected, sizeof(expected), FROM_CLIENT);
  CHECK(memcmp(memory, expected, sizeof(memory)) == 0);

  fill(memory, sizeof(memory), FROM_SERVER);
  REQUIRE(flagcxP2pCEngineMakeDesc(conn, address, sizeof(memory), &desc) == 0);
  REQUIRE(flagcxP2pCEngineWrite(conn, mrId, memory, sizeof(memory), &desc, &id) == 0);
  CHECK(isDone(conn, id));
  CHECK(flagcxP2pEngineSendNotifBytes(conn, "written", NULL, 0) == 0);
  while (getchar() != EOF) { /* until the client has looked */
  }
  flagcxP2pCEngineConnDestroy(conn);
  flagcxP2pCEngineMrDestroy(engine, mrId);
  flagcxP2pCEngineDestroy(engine);
}

struct Process {
  pid_t pid;
  FILE *in, *out;
};

static struct Process startServer(void) {
  int in[2], out[2];
  REQUIRE(pipe(in) == 0 && pipe(out) == 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, in[1]);
  posix_spawn_file_actions_addclose(&actions, out[0]);
  char *arguments[] = {"c_suite", "serve", NULL};
  struct Process process = {.pid = -1, .in = fdopen(in[1], "w"), .out = fdopen(out[0], "r")};
  REQUIRE(posix_spawn(&process.pid, "/proc/self/exe", &actions, NULL, arguments, environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  return process;
}

/* The server's port, and the descriptor that it has printed. */
static int readServer(FILE *out, FlagcxP2pRdmaDesc *desc) {
  int port = 0;
  REQUIRE(fscanf(out, "%d", &port) == 1);
  for (size_t i = 0; i < sizeof(*desc); ++i) {
    unsigned byte = 0;
    REQUIRE(fscanf(out, "%2x", &byte) == 1);
    ((unsigned char *)desc)[i] = (unsigned char)byte;
  }
  return port;
}

void moveBetweenProcesses(void) {
  struct Process server = startServer();
  FlagcxP2pRdmaDesc desc;
  const int port = readServer(server.out, &desc);
  FlagcxP2pEngine *const engine = flagcxP2pCEngineCreate();
  REQUIRE(engine != NULL);
  const uint64_t mrId = registerMemory(engine, memory, sizeof(memory));
  FlagcxP2pConn *const conn = flagcxP2pCEngineConnect(engine, "127.0.0.1", 0, port, false);
  REQUIRE(conn != NULL);
  FlagcxP2pConnInfo info = {.size = sizeof(info)};
  CHECK(flagcxP2pEngineGetConnInfo(conn, &info) == 0);
  CHECK(info.path == FLAGCX_P2P_PATH_CROSS_MEMORY || info.path == FLAGCX_P2P_PATH_TCP);

  uint64_t id = 0;
  fill(memory, sizeof(memory), FROM_CLIENT);
  REQUIRE(flagcxP2pCEngineWrite(conn, mrId, memory, sizeof(memory), &desc, &id) == 0);
  CHECK(isDone(conn, id));
  memset(memory, 0, sizeof(memory));
  REQUIRE(flagcxP2pCEngineRead(conn, mrId, memory, sizeof(memory), &desc, &id) == 0);
  CHECK(isDone(conn, id));
  fill(expected, sizeof(expected), FROM_CLIENT);
  CHECK(memcmp(memory, expected, sizeof(memory)) == 0);

  const uint64_t address = (uintptr_t)memory;
  int written = 0;
  CHECK(flagcxP2pEngineSendNotifBytes(conn, "address", &address, sizeof(address)) == 0);
  while (written == 0) {
    REQUIRE(flagcxP2pEngineGetNotifsOf(engine, takeCount, &written) == 0);
    usleep(200);
  }
  fill(expected, sizeof(expected), FROM_SERVER);
  CHECK(memcmp(memory, expected, sizeof(memory)) == 0);

  fclose(server.in);
  int status = -1;
  REQUIRE(waitpid(server.pid, &status, 0) == server.pid);
  CHECK(status == 0);
  fclose(server.out);
  flagcxP2pCEngineConnDestroy(conn);
  flagcxP2pCEngineMrDestroy(engine, mrId);
  flagcxP2pCEngineDestroy(engine);
}
