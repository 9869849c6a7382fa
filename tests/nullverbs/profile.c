// Profiles: the settings that play one kind of awkward device, by name. README.md says which driver behaves so.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SETTINGS 8

#define INFINIBAND \
  { "link_layer", IBV_LINK_LAYER_INFINIBAND }

static const struct {
  const char *name;
  struct {
    const char *setting;
    uint64_t value;
  } settings[MOST_SETTINGS]; // ends at the first without a name
} profiles[] = {
    {"grh_required", {INFINIBAND, {"grh_required", 1}}},
    {"foreign_prefix", {INFINIBAND, {"subnet_prefix", 0xfec0000000000001}, {"subnet_step", 1}}},
    {"foreign_prefix_flid", {INFINIBAND, {"subnet_prefix", 0xfec0000001230001}, {"subnet_step", 0x10001}}},
    {"link_layer_0", {INFINIBAND, {"hide_link_layer", 1}}},
    {"link_layer_0_ethernet", {{"hide_link_layer", 1}}},
    {"stale_gids", {{"gids", 8}, {"stale_gids", 2}}},
    {"refused_gids", {{"gids", 8}, {"stale_gids", 1}, {"refused_gids", 1 << 2}}},
    {"old_gid_library", {{"gid_calls", 0}}},
    {"no_atomics", {{"atomics", 0}}},
    {"small_regions", {{"max_region", 64u << 10}}},
    {"max_msg_0", {{"maxmsg", 0}, {"true_maxmsg", 1u << 30}}},
    {"efa", {{"no_rc", UINT64_MAX}, {"vendor", 0x1d0f}, {"part", 0xefa1}}},
    {"bnxt", {{"oldest_errors", 1}, {"vendor", 0x14e4}, {"part", 0x1750}}},
    {"irdma", {{"oldest_errors", 1}, {"vendor", 0x8086}, {"part", 0x1592}, {"max_inline", 101}}},
    {"small_caps", {{"grant_depth", 24}, {"grant_sge", 2}, {"grant_inline", 16}}},
    {"inline_above_cap", {{"max_inline", 20}}},
    {"small_queues", {{"queue_bytes", 16384}}},
    {"long_queues", {{"least_cqe", 256}, {"least_depth", 16}}},
    {"slow_commands", {{"create_qp_ns", 400000000}, {"reg_ns", 400000000}}},
    {"silent_peer", {{"devs", 3}, {"silent_device", 3}}},
    {"eight_devices", {{"devs", 8}, {"vectors", 16}}},
};

static int apply_one(const char *name) {
  for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
    if (strcmp(name, profiles[i].name))
      continue;
    for (size_t j = 0; j < MOST_SETTINGS && profiles[i].settings[j].setting; j++) {
      // A table that names a setting which does not exist is a mistake of this file.
      if (nullverbs_set(profiles[i].settings[j].setting, profiles[i].settings[j].value))
        abort();
    }
    return 0;
  }
  return EINVAL;
}

int nullverbs_profile(const char *names) {
  char list[256];
  if (strlen(names) >= sizeof list)
    return EINVAL;
  strcpy(list, names);
  char *rest = NULL;
  for (char *name = strtok_r(list, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
    int code = apply_one(name);
    if (code)
      return code;
  }
  return 0;
}
