/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver of the machine's limits: see limits.h.
 *
 *   limits target LIMIT
 *   limits initiator LIMIT LINE_OF_THE_TARGET
 *
 * LIMIT: memcpy, process_vm, process_vm_all, tcp_blocking or tcp_polling.
 */
#include "limits.h"

#include <string.h>
#include <unistd.h>

static int is(const char *limit, const char *name) {
  return strcmp(limit, name) == 0;
}

static void run_target(const char *limit) {
  if (is(limit, "tcp_blocking") || is(limit, "tcp_polling")) {
    limit_tcp_target(is(limit, "tcp_polling"));
    return;
  }
  measure_say("%d,%llu", (int)getpid(), (unsigned long long)(uintptr_t)measure_pool(TARGET));
  measure_sleep();
}

static void run_initiator(const char *limit, const char *line) {
  if (is(limit, "memcpy"))
    limit_memcpy();
  else if (is(limit, "process_vm") || is(limit, "process_vm_all"))
    limit_process_vm(is(limit, "process_vm_all"), line);
  else if (is(limit, "tcp_blocking") || is(limit, "tcp_polling"))
    limit_tcp(is(limit, "tcp_polling"), line);
  else
    measure_fail("no limit is called %s", limit);
}

int main(int argc, char **argv) {
  measure_begin("limits");
  if (argc == 3 && is(argv[1], "target"))
    run_target(argv[2]);
  else if (argc == 4 && is(argv[1], "initiator"))
    run_initiator(argv[2], argv[3]);
  else
    measure_fail("usage: limits target LIMIT, or limits initiator LIMIT LINE_OF_THE_TARGET");
  _exit(0);
}
