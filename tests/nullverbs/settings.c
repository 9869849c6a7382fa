// Settings, and the counters printed at exit.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct settings settings = {
    .devices = 1,
    .copy = 1,
    .max_message = 1u << 30,
    .port_speed = 32,
    .max_region = UINT64_MAX,
    .max_depth = 32768,
    .gids = 2,
    .port_state = IBV_PORT_ACTIVE,
    .link_layer = IBV_LINK_LAYER_ETHERNET,
    .granting = UINT64_MAX,
    .slow_destroys = UINT64_MAX,
    .locked_bytes = UINT64_MAX,
    .fork_status = IBV_FORK_UNNEEDED,
    .atomics = 1,
    .subnet_prefix = 0xfe80000000000000,
    .gid_calls = 2,
    .max_inline = MAX_INLINE,
    .vectors = 1,
    .vendor = 0x02c9, // what mlx5 fills in for a ConnectX-7
    .part = 4129,
    .dma_buf = 1,
    .stiff_errno = EIO,
};
struct counters counters;

static const struct {
  const char *name;
  size_t offset;
} table[] = {
    {"devs", offsetof(struct settings, devices)},
    {"copy", offsetof(struct settings, copy)},
    {"doorbell_errno", offsetof(struct settings, doorbell_errno)},
    {"delay_ns", offsetof(struct settings, delay_ns)},
    {"rate", offsetof(struct settings, rate)},
    {"reg_ns", offsetof(struct settings, reg_ns)},
    {"dereg_ns", offsetof(struct settings, dereg_ns)},
    {"held_devices", offsetof(struct settings, held_devices)},
    {"create_qp_ns", offsetof(struct settings, create_qp_ns)},
    {"destroy_qp_ns", offsetof(struct settings, destroy_qp_ns)},
    {"slow_destroys", offsetof(struct settings, slow_destroys)},
    {"stats", offsetof(struct settings, stats)},
    {"trace", offsetof(struct settings, trace)},
    {"maxmsg", offsetof(struct settings, max_message)},
    {"max_region", offsetof(struct settings, max_region)},
    {"region_step", offsetof(struct settings, region_step)},
    {"max_depth", offsetof(struct settings, max_depth)},
    {"gids", offsetof(struct settings, gids)},
    {"port_state", offsetof(struct settings, port_state)},
    {"link_layer", offsetof(struct settings, link_layer)},
    {"other_links", offsetof(struct settings, other_links)},
    {"small_mtus", offsetof(struct settings, small_mtus)},
    {"locked_bytes", offsetof(struct settings, locked_bytes)},
    {"address", offsetof(struct settings, address)},
    {"fork_status", offsetof(struct settings, fork_status)},
    {"fork_errno", offsetof(struct settings, fork_errno)},
    {"atomics", offsetof(struct settings, atomics)},
    {"true_maxmsg", offsetof(struct settings, true_max_message)},
    {"grh_required", offsetof(struct settings, grh_required)},
    {"subnet_prefix", offsetof(struct settings, subnet_prefix)},
    {"subnet_step", offsetof(struct settings, subnet_step)},
    {"stale_gids", offsetof(struct settings, stale_gids)},
    {"refused_gids", offsetof(struct settings, refused_gids)},
    {"traffic_class", offsetof(struct settings, traffic_class)},
    {"gid_calls", offsetof(struct settings, gid_calls)},
    {"hide_link_layer", offsetof(struct settings, hide_link_layer)},
    {"no_rc", offsetof(struct settings, no_rc)},
    {"max_inline", offsetof(struct settings, max_inline)},
    {"queue_bytes", offsetof(struct settings, queue_bytes)},
    {"least_depth", offsetof(struct settings, least_depth)},
    {"grant_depth", offsetof(struct settings, grant_depth)},
    {"grant_sge", offsetof(struct settings, grant_sge)},
    {"grant_inline", offsetof(struct settings, grant_inline)},
    {"granting", offsetof(struct settings, granting)},
    {"oldest_errors", offsetof(struct settings, oldest_errors)},
    {"silent_device", offsetof(struct settings, silent_device)},
    {"least_cqe", offsetof(struct settings, least_cqe)},
    {"short_cqs", offsetof(struct settings, short_cqs)},
    {"vectors", offsetof(struct settings, vectors)},
    {"vendor", offsetof(struct settings, vendor)},
    {"part", offsetof(struct settings, part)},
    {"dma_buf", offsetof(struct settings, dma_buf)},
    {"late_writes", offsetof(struct settings, late_writes)},
    {"troubles", offsetof(struct settings, troubles)},
    {"silent_devices", offsetof(struct settings, silent_devices)},
    {"slow_devices", offsetof(struct settings, slow_devices)},
    {"slow_ns", offsetof(struct settings, slow_ns)},
    {"failing_devices", offsetof(struct settings, failing_devices)},
    {"fail_every", offsetof(struct settings, fail_every)},
    {"unreachable", offsetof(struct settings, unreachable)},
    {"stuck_devices", offsetof(struct settings, stuck_devices)},
    {"stiff_devices", offsetof(struct settings, stiff_devices)},
    {"stiff_errno", offsetof(struct settings, stiff_errno)},
    {"down_ports", offsetof(struct settings, down_ports)},
    {"narrow_ports", offsetof(struct settings, narrow_ports)},
    {"port_speed", offsetof(struct settings, port_speed)},
};
static const size_t table_length = sizeof table / sizeof *table;

int nullverbs_set(const char *name, uint64_t value) {
  for (size_t i = 0; i < table_length; i++) {
    if (!strcmp(name, table[i].name)) {
      memcpy((char *)&settings + table[i].offset, &value, sizeof value);
      if (settings.devices > MAX_DEVICES)
        settings.devices = MAX_DEVICES;
      if (!strcmp(name, "silent_devices"))
        send_all_again();
      return 0;
    }
  }
  return EINVAL;
}

void nullverbs_live(struct nullverbs_live *out) {
  *out = (struct nullverbs_live){counters.contexts, counters.domains, counters.regions, counters.completion_queues,
                                 counters.queue_pairs};
}

static void print_counters(void) {
  struct nullverbs_live live;
  nullverbs_live(&live);
  fold_live_counters();
  fprintf(stderr,
          "nullverbs: alive: contexts=%ld pds=%ld mrs=%ld cqs=%ld qps=%ld; post calls=%lu requests=%lu refused=%lu "
          "bytes=%lu; poll calls=%lu empty=%lu completions=%lu errors=%lu overruns=%lu discarded=%lu\n",
          live.contexts, live.domains, live.regions, live.completion_queues, live.queue_pairs, counters.post_calls,
          counters.requests, counters.refused, counters.bytes, counters.poll_calls, counters.empty_polls,
          counters.completions, counters.error_completions, counters.overruns, counters.discarded);
}

__attribute__((constructor)) static void read_environment(void) {
  const char *profile = getenv("NULLVERBS_PROFILE");
  if (profile && nullverbs_profile(profile)) {
    fprintf(stderr, "nullverbs: NULLVERBS_PROFILE=%s names a profile that does not exist\n", profile);
    abort();
  }
  for (size_t i = 0; i < table_length; i++) {
    char name[64];
    snprintf(name, sizeof name, "NULLVERBS_%s", table[i].name);
    for (char *c = name; *c; c++) *c = (char)toupper(*c);
    const char *text = getenv(name);
    if (text)
      nullverbs_set(table[i].name, strtoull(text, NULL, 0));
  }
  if (settings.stats)
    atexit(print_counters);
}
