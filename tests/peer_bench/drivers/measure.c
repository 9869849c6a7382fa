/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools, plans and the check that bytes have arrived: see measure.h.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The stamp is a word at the start of each page. */
#define PAGE ((size_t)4096)
#define PAGES (POOL_BYTES / PAGE)
/* iovecs of one process_vm_* call. */
#define MOST_IOVECS ((size_t)1024)

static const char *driver = "driver";
static FILE *answers;

void measure_begin(const char *name) {
  driver = name;
  /* What libraries print to stdout goes where their other messages go, and not between the answers. */
  answers = fdopen(dup(STDOUT_FILENO), "w");
  if (answers == NULL || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
    measure_fail("cannot duplicate stdout: %s", strerror(errno));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
}

void measure_fail(const char *format, ...) {
  va_list arguments;
  fprintf(stderr, "%s: ", driver);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  /* Without the clean-up of the libraries, which may wait for a peer. */
  _exit(1);
}

void measure_say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(answers, format, arguments);
  va_end(arguments);
  fputc('\n', answers);
  fflush(answers);
}

void measure_sleep(void) {
  for (;;) pause();
}

static uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

static uint64_t next_random(uint64_t *state) {
  *state += 0x9e3779b97f4a7c15u;
  return mix(*state);
}

unsigned char *measure_pool(enum side side) {
  const char *const pools = getenv("PEER_BENCH_POOLS");
  int files[2] = {-1, -1};
  if (pools != NULL && sscanf(pools, "%d,%d", &files[INITIATOR], &files[TARGET]) != 2)
    measure_fail("PEER_BENCH_POOLS is two file descriptors, not %s", pools);
  const int flags = pools != NULL ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void *const pool = mmap(NULL, POOL_BYTES, PROT_READ | PROT_WRITE, flags, files[side], 0);
  if (pool == MAP_FAILED)
    measure_fail("cannot map a pool of %zu bytes: %s", POOL_BYTES, strerror(errno));
  measure_fill(pool, side);
  return pool;
}

void measure_fill(unsigned char *pool, enum side side) {
  for (size_t at = 0; at < POOL_BYTES; at += sizeof(uint64_t)) {
    const uint64_t word = mix(at + ((uint64_t)side << 32) + 1);
    memcpy(pool + at, &word, sizeof(word));
  }
}

/* The blocks of one side: see struct plan. */
static uint64_t *choose_blocks(const struct load *load, uint64_t *random) {
  const size_t size = load->size, batch = load->batch, sets = load->sets, blocks = POOL_BYTES / size;
  uint64_t *const order = malloc(blocks * sizeof(*order));
  uint64_t *const chosen = malloc(sets * batch * sizeof(*chosen));
  if (order == NULL || chosen == NULL)
    measure_fail("no memory for %zu offsets", blocks);
  for (size_t i = 0; i < blocks; ++i) order[i] = i * size;
  /* A shuffle that goes on from set to set, and begins again where the blocks that are left are too few for one. */
  size_t at = 0;
  for (size_t set = 0; set < sets; ++set) {
    if (at + batch > blocks)
      at = 0;
    for (size_t i = 0; i < batch; ++i, ++at) {
      const size_t other = at + next_random(random) % (blocks - at);
      const uint64_t offset = order[other];
      order[other] = order[at];
      order[at] = offset;
      chosen[set * batch + i] = offset;
    }
  }
  free(order);
  return chosen;
}

void measure_plan(struct plan *plan, const struct load *load, unsigned char *local, pid_t peer, uint64_t remote) {
  if (load->size < PAGE || load->batch == 0 || load->batch > POOL_BYTES / load->size || load->sets == 0 ||
      load->sets > POOL_BYTES / PAGE)
    measure_fail("%zu sets of %zu blocks of %zu bytes: blocks are at least %zu bytes and fit into the pool of %zu",
                 load->sets, load->batch, load->size, PAGE, POOL_BYTES);
  uint64_t random = load->seed;
  plan->load = *load;
  plan->local = local;
  plan->peer = peer;
  plan->remote = remote;
  plan->local_offsets = choose_blocks(load, &random);
  plan->remote_offsets = choose_blocks(load, &random);
}

void measure_plan_free(struct plan *plan) {
  free(plan->local_offsets);
  free(plan->remote_offsets);
}

void measure_stamp(const struct plan *plan) {
  static uint64_t stamps[PAGES];
  static struct iovec from[MOST_IOVECS], to[MOST_IOVECS];
  for (size_t page = 0; page < PAGES; ++page) stamps[page] = mix(plan->load.seed * PAGES + page);
  if (plan->load.put) {
    for (size_t page = 0; page < PAGES; ++page) memcpy(plan->local + page * PAGE, &stamps[page], sizeof(*stamps));
    return;
  }
  for (size_t first = 0; first < PAGES; first += MOST_IOVECS) {
    for (size_t i = 0; i < MOST_IOVECS; ++i) {
      from[i].iov_base = &stamps[first + i];
      to[i].iov_base = (void *)(uintptr_t)(plan->remote + (first + i) * PAGE);
      from[i].iov_len = to[i].iov_len = sizeof(*stamps);
    }
    if (process_vm_writev(plan->peer, from, MOST_IOVECS, to, MOST_IOVECS, 0) !=
        (ssize_t)(MOST_IOVECS * sizeof(*stamps)))
      measure_fail("cannot write to the target's memory, which the check needs: %s", strerror(errno));
  }
}

void measure_verify(const struct plan *plan, uint64_t transfers) {
  const struct load load = plan->load;
  const size_t blocks = POOL_BYTES / load.size, none = SIZE_MAX;
  const uint64_t *const sources = load.put ? plan->local_offsets : plan->remote_offsets;
  const uint64_t *const destinations = load.put ? plan->remote_offsets : plan->local_offsets;
  size_t *const last = malloc(blocks * sizeof(*last)); /* which entry of the plan wrote a block last */
  unsigned char *const copy = malloc(load.size);
  if (last == NULL || copy == NULL)
    measure_fail("no memory for the check");
  for (size_t i = 0; i < blocks; ++i) last[i] = none;
  for (uint64_t transfer = transfers > load.sets ? transfers - load.sets : 0; transfer < transfers; ++transfer)
    for (size_t i = 0; i < load.batch; ++i) {
      const size_t entry = transfer % load.sets * load.batch + i;
      last[destinations[entry] / load.size] = entry;
    }
  for (size_t block = 0; block < blocks; ++block) {
    if (last[block] == none)
      continue;
    struct iovec here = {copy, load.size};
    struct iovec there = {(void *)(uintptr_t)(plan->remote + plan->remote_offsets[last[block]]), load.size};
    if (process_vm_readv(plan->peer, &here, 1, &there, 1, 0) != (ssize_t)load.size)
      measure_fail("cannot read the target's memory, which the check needs: %s", strerror(errno));
    if (memcmp(copy, plan->local + plan->local_offsets[last[block]], load.size) != 0)
      measure_fail("THE BYTES DIFFER after %llu transfers: destination offset %llu, source offset %llu",
                   (unsigned long long)transfers, (unsigned long long)destinations[last[block]],
                   (unsigned long long)sources[last[block]]);
  }
  free(last);
  free(copy);
}

static double seconds_of(clockid_t clock) {
  struct timespec time;
  if (clock_gettime(clock, &time) != 0)
    measure_fail("cannot read a clock: %s", strerror(errno));
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

double measure_now(void) {
  return seconds_of(CLOCK_MONOTONIC);
}

double measure_cpu(pid_t process) {
  clockid_t clock;
  if (clock_getcpuclockid(process, &clock) != 0)
    measure_fail("process %d has ended", (int)process);
  return seconds_of(clock);
}
