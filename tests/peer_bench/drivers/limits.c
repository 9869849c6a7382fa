/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver of the machine's limits: see limits.h.
 *
 *   limits target LIMIT
 *   limits initiator LIMIT LINE_OF_THE_TARGET
 */
#include "limits.h"

#include <string.h>
#include <unistd.h>

enum kind { MEMCPY, PROCESS_VM, TCP };

static const struct limit {
  const char *name;
  enum kind kind;
  size_t threads;       /* MEMCPY, PROCESS_VM */
  struct tcp_limit tcp; /* TCP */
} limits[] = {
    {"memcpy", MEMCPY, 1, {0}},
    {"memcpy_all", MEMCPY, EVERY_PROCESSOR, {0}},
    {"process_vm", PROCESS_VM, 1, {0}},
    {"process_vm_all", PROCESS_VM, EVERY_PROCESSOR, {0}},
    {"tcp_blocking", TCP, 0, {.streams = 1}},
    {"tcp_polling", TCP, 0, {.streams = 1, .polls = 1}},
    {"tcp_polling_128k", TCP, 0, {.streams = 1, .polls = 1, .buffer = 128 << 10}},
    {"tcp_two", TCP, 0, {.streams = 2}},
};

static const struct limit *find(const char *name) {
  for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); ++i)
    if (strcmp(limits[i].name, name) == 0)
      return &limits[i];
  measure_fail("no limit is called %s", name);
}

static void run_target(const struct limit *limit) {
  if (limit->kind == TCP) {
    limit_tcp_target(&limit->tcp);
    return;
  }
  measure_say("%d,%llu", (int)getpid(), (unsigned long long)(uintptr_t)measure_pool(TARGET));
  measure_sleep();
}

static void run_initiator(const struct limit *limit, const char *line) {
  if (limit->kind == MEMCPY)
    limit_memcpy(limit->threads);
  else if (limit->kind == PROCESS_VM)
    limit_process_vm(limit->threads, line);
  else
    limit_tcp(&limit->tcp, line);
}

int main(int argc, char **argv) {
  measure_begin("limits");
  if (argc == 3 && strcmp(argv[1], "target") == 0)
    run_target(find(argv[2]));
  else if (argc == 4 && strcmp(argv[1], "initiator") == 0)
    run_initiator(find(argv[2]), argv[3]);
  else
    measure_fail("usage: limits target LIMIT, or limits initiator LIMIT LINE_OF_THE_TARGET");
  _exit(0);
}
