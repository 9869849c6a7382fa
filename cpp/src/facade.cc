// SPDX-License-Identifier: Apache-2.0
#include "facade.h"

#include <algorithm>
#include <climits>
#include <cstdio>

namespace flagcx::p2p {

int refuse(const char *call, const std::string &reason) {
  startLogging();
  ffi::refuse_call(call, reason);
  return -1;
}

int refuseNull(const char *call, const char *argument) {
  return refuse(call, std::string(argument) + " is NULL");
}

int refuseCount(const char *call, size_t count) {
  // Not std::to_string: its table of digits would be one more name that the library exports.
  char reason[80];
  std::snprintf(reason, sizeof(reason), "a transfer has at most %d pieces, got %zu", INT_MAX, count);
  return refuse(call, reason);
}

void copyText(rust::Str from, char *to, size_t capacity) {
  if (capacity == 0)
    return;
  const size_t length = std::min(from.size(), capacity - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

} // namespace flagcx::p2p
