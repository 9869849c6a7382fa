/* SPDX-License-Identifier: Apache-2.0
 *
 * memcpy and process_vm_writev/readv: see limits.h.
 */
#define _GNU_SOURCE
#include "limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* iovecs of one call: the kernel's limit. */
#define MOST_IOVECS ((size_t)1024)
#define MOST_THREADS 64
/* Below so many bytes for each thread, one thread is faster than several. */
#define SHARE ((size_t)16 << 10)

/* Moves the bytes from `first` to `end` of a set, as if its blocks were adjacent. */
typedef void (*move)(const struct plan *plan, size_t set, size_t first, size_t end);

struct limit {
  move move;
  size_t threads; /* of the transfers now measured, the calling one included */
  size_t most_threads;
  const struct plan *plan;
  size_t set;
  /* The helpers take the next transfer when `begun` changes and add to `ended` when they are done; release and acquire
   * order `set` and the bytes. */
  _Atomic uint64_t begun;
  _Atomic uint64_t ended;
  _Atomic size_t helping; /* helpers that have started */
  atomic_int stop;
  pthread_t helpers[MOST_THREADS];
};

static size_t share_of(const struct limit *limit, size_t number) {
  const size_t pages = limit->plan->load.size * limit->plan->load.batch / 4096;
  return pages * number / limit->threads * 4096;
}

static void move_share(struct limit *limit, size_t number) {
  limit->move(limit->plan, limit->set, share_of(limit, number), share_of(limit, number + 1));
}

static void *help(void *argument) {
  struct limit *const limit = argument;
  const size_t number = 1 + atomic_fetch_add(&limit->helping, 1);
  for (uint64_t seen = 0; !atomic_load_explicit(&limit->stop, memory_order_acquire);) {
    const uint64_t begun = atomic_load_explicit(&limit->begun, memory_order_acquire);
    if (begun == seen)
      continue;
    seen = begun;
    move_share(limit, number);
    atomic_fetch_add_explicit(&limit->ended, 1, memory_order_release);
  }
  return NULL;
}

static void prepare(void *context, const struct plan *plan) {
  struct limit *const limit = context;
  const size_t shares = plan->load.size * plan->load.batch / SHARE;
  limit->plan = plan;
  limit->threads = shares < 1 ? 1 : shares < limit->most_threads ? shares : limit->most_threads;
  atomic_store(&limit->begun, 0);
  atomic_store(&limit->ended, 0);
  atomic_store(&limit->helping, 0);
  atomic_store(&limit->stop, 0);
  for (size_t i = 1; i < limit->threads; ++i)
    if (pthread_create(&limit->helpers[i], NULL, help, limit) != 0)
      measure_fail("cannot start a thread");
}

static void transfer(void *context, size_t set) {
  struct limit *const limit = context;
  limit->set = set;
  const uint64_t begun = atomic_fetch_add_explicit(&limit->begun, 1, memory_order_release) + 1;
  move_share(limit, 0);
  while (atomic_load_explicit(&limit->ended, memory_order_acquire) != begun * (limit->threads - 1)) {
  }
}

static void finish(void *context) {
  struct limit *const limit = context;
  atomic_store_explicit(&limit->stop, 1, memory_order_release);
  for (size_t i = 1; i < limit->threads; ++i) pthread_join(limit->helpers[i], NULL);
}

/* The bytes from `first` on that lie in one block and before `end`: their places on both sides. */
static size_t piece_at(const struct plan *plan, size_t set, size_t first, size_t end, unsigned char **local,
                       uint64_t *remote) {
  const struct load *const load = &plan->load;
  const size_t entry = set * load->batch + first / load->size, within = first % load->size;
  const size_t rest = load->size - within;
  *local = plan->local + plan->local_offsets[entry] + within;
  *remote = plan->remote + plan->remote_offsets[entry] + within;
  return rest < end - first ? rest : end - first;
}

static void move_by_memcpy(const struct plan *plan, size_t set, size_t first, size_t end) {
  unsigned char *local;
  uint64_t remote;
  for (size_t bytes; first < end; first += bytes) {
    bytes = piece_at(plan, set, first, end, &local, &remote);
    void *const other = (void *)(uintptr_t)remote;
    if (plan->load.put)
      memcpy(other, local, bytes);
    else
      memcpy(local, other, bytes);
  }
}

static void move_by_process_vm(const struct plan *plan, size_t set, size_t first, size_t end) {
  while (first < end) {
    struct iovec here[MOST_IOVECS], there[MOST_IOVECS];
    size_t count = 0;
    ssize_t total = 0, moved;
    for (; first < end && count < MOST_IOVECS; ++count) {
      unsigned char *local;
      uint64_t remote;
      const size_t bytes = piece_at(plan, set, first, end, &local, &remote);
      here[count].iov_base = local;
      there[count].iov_base = (void *)(uintptr_t)remote;
      here[count].iov_len = there[count].iov_len = bytes;
      first += bytes;
      total += (ssize_t)bytes;
    }
    moved = plan->load.put ? process_vm_writev(plan->peer, here, count, there, count, 0)
                           : process_vm_readv(plan->peer, here, count, there, count, 0);
    if (moved != total)
      measure_fail("process_vm_* moved %zd of %zd bytes: %s", moved, total, strerror(errno));
  }
}

static void run(struct limit *limit, pid_t peer, uint64_t remote) {
  const struct engine engine = {limit, prepare, transfer, finish};
  measure_say("%s", "");
  measure_serve(&engine, measure_pool(INITIATOR), peer, remote);
}

static size_t threads_of(size_t threads) {
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  if (threads != EVERY_PROCESSOR)
    return threads;
  return processors < 1 ? 1 : processors < MOST_THREADS ? (size_t)processors : MOST_THREADS;
}

void limit_memcpy(size_t threads) {
  static struct limit limit = {.move = move_by_memcpy};
  limit.most_threads = threads_of(threads);
  run(&limit, getpid(), (uintptr_t)measure_pool(TARGET));
}

void limit_process_vm(size_t threads, const char *line) {
  static struct limit limit = {.move = move_by_process_vm};
  int peer;
  unsigned long long remote;
  if (sscanf(line, "%d,%llu", &peer, &remote) != 2)
    measure_fail("not the line of a target: %s", line);
  limit.most_threads = threads_of(threads);
  run(&limit, peer, remote);
}
