// Profiles: the settings that play one kind of awkward device, by name. README.md says which driver behaves so.
#define _GNU_SOURCE
#include "nullverbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_SETTINGS 8

static const struct {
  const char *name;
  struct {
    const char *setting;
    uint64_t value;
  } settings[MOST_SETTINGS]; // ends at the first without a name
} profiles[] = {
    {"no_atomics", {{"atomics", 0}}},
    {"max_msg_0", {{"maxmsg", 0}, {"true_maxmsg", 1u << 30}}},
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
