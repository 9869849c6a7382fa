/* SPDX-License-Identifier: Apache-2.0
 *
 * The limits of a machine: the blocks moved by a copy, a system call or a socket alone.
 */
#ifndef LIMITS_H_
#define LIMITS_H_

#include "measure.h"

/* limit_memory.c: every block copied into a second pool of this process by memcpy. */
void limit_memcpy(void);
/* The blocks of a transfer passed to process_vm_writev or readv, by one thread, or divided between one for each processor. */
void limit_process_vm(int every_processor, const char *line);

/* limit_tcp.c: the blocks of a transfer on one TCP connection, and an answer of 8 bytes for a put. Each side sleeps in
 * the kernel until it can continue, or polls. */
void limit_tcp_target(int polls);
void limit_tcp(int polls, const char *line);

#endif /* LIMITS_H_ */
