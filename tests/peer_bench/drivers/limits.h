/* SPDX-License-Identifier: Apache-2.0
 *
 * The limits of a machine: the blocks moved by a copy, a system call or a socket alone.
 */
#ifndef LIMITS_H_
#define LIMITS_H_

#include "measure.h"

/* As a number of threads: one for each processor. */
#define EVERY_PROCESSOR ((size_t)0)

/* limit_memory.c: the blocks of a transfer copied into a second pool of this process by memcpy, or passed to
 * process_vm_writev or readv; divided between that many threads, which poll. */
void limit_memcpy(size_t threads);
void limit_process_vm(size_t threads, const char *line);

/* limit_tcp.c: the blocks of a transfer on TCP connections, each with a thread on both sides, and an answer of 8 bytes for
 * a put. */
struct tcp_limit {
  size_t streams; /* connections that the bytes are divided between */
  int polls;      /* 1: each side polls; 0: it sleeps in the kernel until it can continue */
  /* SO_SNDBUF and SO_RCVBUF; 0 leaves the sizes to the kernel, which on loopback lets megabytes wait in the socket. These
   * are out of the caches before they are received: half the rate of small buffers. */
  int buffer;
};
void limit_tcp_target(const struct tcp_limit *limit);
void limit_tcp(const struct tcp_limit *limit, const char *line);

#endif /* LIMITS_H_ */
