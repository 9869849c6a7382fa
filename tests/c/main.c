/* SPDX-License-Identifier: Apache-2.0
 *
 * The C suites: `c_suite NAME` runs one of them. Everything goes through flagcx_p2p_ext.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

static const struct Suite {
  const char *name;
  void (*run)(void);
} suites[] = {
    {"connect", connectAndMove},
    {"vectors", moveVectors},
    {"descriptors", makeDescriptors},
    {"shared", shareMemory},
    {"notifications", notify},
    {"sessions", keepSessions},
    {"stop_accept", stopAccepting},
    {"bad_input", refuseBadInput},
    {"two_processes", moveBetweenProcesses},
    {"information", askForInformation},
    {"slow_transfers", findSlowTransfers},
    {"serve", serve},
};

int main(int argc, char **argv) {
  alarm(60); /* one that hangs ends with SIGALRM */
  for (size_t i = 0; argc == 2 && i < sizeof(suites) / sizeof(suites[0]); ++i) {
    if (strcmp(argv[1], suites[i].name) != 0)
      continue;
    suites[i].run();
    return failures() == 0 ? 0 : 1;
  }
  fprintf(stderr, "usage: c_suite NAME\n");
  return 2;
}
