/* SPDX-License-Identifier: Apache-2.0
 *
 * The initiator's loop of the C drivers: see measure.h. driver.py has this loop for the Python drivers.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Latencies kept of one measurement; later ones count for the throughput only. */
#define LATENCIES ((size_t)1 << 20)
/* The loop runs for so long before it is measured, or for so many transfers: connections are made, caches filled. */
#define WARM_SECONDS 0.01
#define WARM_TRANSFERS 20
#define BIG_BLOCK ((size_t)1 << 20)

static int ascending(const void *one, const void *other) {
  const float a = *(const float *)one, b = *(const float *)other;
  return (a > b) - (a < b);
}

/* Moves both pools once in each direction: an engine that maps the target's memory pays for its page faults here. */
static void touch_all_pages(const struct engine *engine, unsigned char *local, pid_t peer, uint64_t remote) {
  for (int put = 0; put <= 1; ++put) {
    const struct load load = {.put = put, .size = BIG_BLOCK, .batch = POOL_BYTES / BIG_BLOCK, .sets = 1};
    struct plan plan;
    measure_plan(&plan, &load, local, peer, remote);
    engine->prepare(engine->context, &plan);
    engine->transfer(engine->context, 0);
    if (engine->finish != NULL)
      engine->finish(engine->context);
    measure_plan_free(&plan);
  }
}

static void warm_up(const struct engine *engine, size_t sets) {
  const double begin = measure_now();
  for (size_t i = 0; i < WARM_TRANSFERS && (i == 0 || measure_now() - begin < WARM_SECONDS); ++i)
    engine->transfer(engine->context, i % sets);
}

static void measure(const struct engine *engine, const struct plan *plan, float *latencies) {
  const struct load load = plan->load;
  uint64_t transfers = 0;
  engine->prepare(engine->context, plan);
  warm_up(engine, load.sets);
  measure_stamp(plan);
  double cpu_target = measure_cpu(plan->peer);
  double cpu_initiator = measure_cpu(getpid());
  const double begin = measure_now();
  double before = begin, now;
  do {
    engine->transfer(engine->context, transfers % load.sets);
    now = measure_now();
    if (transfers < LATENCIES)
      latencies[transfers] = (float)(now - before);
    before = now;
    transfers += 1;
  } while (now - begin < load.seconds);
  cpu_initiator = measure_cpu(getpid()) - cpu_initiator;
  cpu_target = measure_cpu(plan->peer) - cpu_target;
  if (engine->finish != NULL)
    engine->finish(engine->context);
  measure_verify(plan, transfers);

  const double bytes = (double)transfers * (double)load.batch * (double)load.size, gib = bytes / (1 << 30);
  const size_t kept = transfers < LATENCIES ? transfers : LATENCIES;
  qsort(latencies, kept, sizeof(*latencies), ascending);
  /* One process holds both ends of some limits: its time is counted once. */
  if (plan->peer == getpid())
    cpu_target = 0;
  measure_say("{\"gbps\": %.6g, \"p50_us\": %.4g, \"p99_us\": %.4g, \"cpu_initiator\": %.5g, \"cpu_target\": %.5g}",
              bytes / (now - begin) / 1e9, latencies[kept / 2] * 1e6, latencies[kept * 99 / 100] * 1e6,
              cpu_initiator / gib, cpu_target / gib);
}

void measure_serve(const struct engine *engine, unsigned char *local, pid_t peer, uint64_t remote) {
  float *const latencies = malloc(LATENCIES * sizeof(*latencies));
  if (latencies == NULL)
    measure_fail("no memory for latencies");
  memset(latencies, 0, LATENCIES * sizeof(*latencies));
  char line[256], operation[8];
  int is_first = 1;
  while (fgets(line, sizeof(line), stdin) != NULL) {
    struct load load;
    unsigned long long seed;
    if (sscanf(line, "%7s %zu %zu %zu %lf %llu", operation, &load.size, &load.batch, &load.sets, &load.seconds,
               &seed) != 6)
      measure_fail("expected `put|get SIZE BATCH SETS SECONDS SEED`, got: %s", line);
    load.put = strcmp(operation, "put") == 0;
    load.seed = seed;
    /* Not before there is a line: this process may be stopped until then, and a transfer has a deadline. */
    if (is_first)
      touch_all_pages(engine, local, peer, remote);
    is_first = 0;
    struct plan plan;
    measure_plan(&plan, &load, local, peer, remote);
    measure(engine, &plan, latencies);
    measure_plan_free(&plan);
  }
  free(latencies);
}
