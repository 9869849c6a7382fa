/* SPDX-License-Identifier: Apache-2.0
 *
 * What the drivers of all systems share, so that all move equal blocks, are timed by one clock and are checked in
 * one way. Python drivers load it as libmeasure.so.
 *
 * A driver is two programs. The target fills a pool of memory, prints one line with what an initiator needs, and
 * serves until it is killed. The initiator gets that line, prints its version, and answers every line
 * `put|get SIZE BATCH SETS SECONDS SEED` with one line of JSON. A failure ends the driver: the reason goes to stderr.
 */
#ifndef MEASURE_H_
#define MEASURE_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of memory on each side. */
#define POOL_BYTES ((size_t)64 << 20)
/* What to measure: transfers of `batch` blocks of `size` bytes, one after the other. `sets` of them have blocks of their
 * own and are used in turn. */
struct load {
  int put; /* 1: put, 0: get */
  size_t size;
  size_t batch;
  size_t sets;
  double seconds;
  uint64_t seed;
};

/* The blocks of all sets as offsets into the pools, in random order. No block is used twice on a side before all of its
 * pool are used, and none twice in one set. Set `s` is local[s * batch] and remote[s * batch], `batch` offsets each. */
struct plan {
  struct load load;
  unsigned char *local; /* this process's pool */
  pid_t peer;           /* the target's process */
  uint64_t remote;      /* the target's pool, an address of that process */
  uint64_t *local_offsets;
  uint64_t *remote_offsets;
};

/* The driver's name for messages. It dies with the process that started it, and lets other processes reach its memory
 * where the kernel asks for that. */
void measure_begin(const char *name);

/* Prints the reason and ends the driver. */
#if defined(__GNUC__)
__attribute__((noreturn, format(printf, 1, 2)))
#endif
void measure_fail(const char *format, ...);

enum side { INITIATOR, TARGET };

/* The pool of one side, with contents. PEER_BENCH_POOLS holds two file descriptors: the memory of both sides, which is
 * the same for all systems, because the pages of a machine are not equally fast. Without it the memory is anonymous. */
unsigned char *measure_pool(enum side side);

/* Gives a pool contents that are different at every address, and on both sides. */
void measure_fill(unsigned char *pool, enum side side);

/* Chooses the blocks. measure_plan_free frees what it allocates. */
void measure_plan(struct plan *plan, const struct load *load, unsigned char *local, pid_t peer, uint64_t remote);
void measure_plan_free(struct plan *plan);

/* Changes every page of the side that is read from, so that bytes of an earlier transfer cannot pass
 * for those of this one. To be called before the clock starts. */
void measure_stamp(const struct plan *plan);

/* Ends the driver unless the last of `transfers` transfers have left the bytes of the source at their destination.
 * Looks into the target's memory itself: the engine under test is not asked. */
void measure_verify(const struct plan *plan, uint64_t transfers);

/* Seconds on the monotonic clock; processor time that a process has used. */
double measure_now(void);
double measure_cpu(pid_t process);

/* Moves set number `set` of the plan and waits until it has arrived. */
typedef void (*measure_transfer)(void *context, size_t set);

/* How an engine takes part in the loop of a C driver. */
struct engine {
  void *context;
  void (*prepare)(void *context, const struct plan *plan); /* before the clock starts */
  measure_transfer transfer;
  void (*finish)(void *context); /* after the clock has stopped; may be NULL */
};

/* The initiator's loop: answers the lines of stdin until it ends. */
void measure_serve(const struct engine *engine, unsigned char *local, pid_t peer, uint64_t remote);

/* The target's end: prints its line and sleeps until it is killed. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
void measure_say(const char *format, ...);
void measure_sleep(void);

#ifdef __cplusplus
}
#endif

#endif /* MEASURE_H_ */
