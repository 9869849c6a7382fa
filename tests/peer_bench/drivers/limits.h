/* SPDX-License-Identifier: Apache-2.0
 *
 * The limits of a machine: the same blocks moved by nothing but a copy, a system call or a socket.
 */
#ifndef LIMITS_H_
#define LIMITS_H_

#include "measure.h"

/* limit_memory.c: every block copied into a second pool of this process by memcpy. */
void limit_memcpy(void);
/* The blocks of a transfer handed to process_vm_writev or readv, by one thread, or dealt to one for each processor. */
void limit_process_vm(int every_processor, const char *line);

/* limit_tcp.c: the blocks of a transfer on one TCP connection, and an answer of 8 bytes for a put. Each side sleeps in
 * the kernel until it can go on, or asks again and again. */
void limit_tcp_target(int polls);
void limit_tcp(int polls, const char *line);

#endif /* LIMITS_H_ */
