/* SPDX-License-Identifier: Apache-2.0
 *
 * What the C suites share: checks, and a connected pair of engines with a registered buffer each. */
#ifndef FLAGCX_P2P_TESTS_C_SUPPORT_H_
#define FLAGCX_P2P_TESTS_C_SUPPORT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flagcx_p2p_ext.h"

#define BUFFER_BYTES ((size_t)1 << 20)

/* Counts a failure and goes on. Prints the place and the calling thread's last error. */
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)
/* The same, and ends the program: what follows cannot work. */
#define REQUIRE(condition)                                   \
  do {                                                       \
    if (!check((condition), #condition, __FILE__, __LINE__)) \
      endProgram();                                          \
  } while (0)

bool check(bool holds, const char *condition, const char *file, int line);
_Noreturn void endProgram(void);
int failures(void);

/* The suites; main.c lists them. */
void connectAndMove(void);
void moveVectors(void);
void makeDescriptors(void);
void shareMemory(void);
void notify(void);
void keepSessions(void);
void stopAccepting(void);
void refuseBadInput(void);
void moveBetweenProcesses(void);
void askForInformation(void);
void findSlowTransfers(void);
/* The other process of moveBetweenProcesses. */
void serve(void);

/* Fills `bytes` bytes with values that depend on position and seed. */
void fill(uint8_t *data, size_t bytes, uint32_t seed);

/* Waits for a transfer, for at most 10 s. Whether it is done; otherwise prints why not. */
bool isDone(FlagcxP2pConn *conn, uint64_t transferId);

/* Registers host memory; its id. */
uint64_t registerMemory(FlagcxP2pEngine *engine, const void *data, size_t bytes);

/* Writes "127.0.0.1:port" of an engine to `session`. */
void sessionOf(FlagcxP2pEngine *engine, char session[64]);

/* Two engines, and both ends of a connection between them. */
struct Pair {
  FlagcxP2pEngine *client, *server;
  FlagcxP2pConn *conn, *accepted; /* the client's end, the server's */
  uint8_t *local, *remote;        /* the client's buffer, the server's: BUFFER_BYTES each, of different bytes */
  uint64_t localMr, remoteMr;
  char peerAddress[64]; /* as Accept told it */
  int peerGpu;
};
struct Pair openPair(void);
void closePair(struct Pair *pair);

/* The descriptor of a part of the server's buffer. */
FlagcxP2pRdmaDesc remoteDesc(const struct Pair *pair, size_t offset, size_t bytes);

#endif /* FLAGCX_P2P_TESTS_C_SUPPORT_H_ */
