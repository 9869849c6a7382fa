// SPDX-License-Identifier: Apache-2.0
#include "facade.h"

#include <algorithm>

namespace flagcx::p2p {

int refuse(const char *call, const std::string &reason) {
  startLogging();
  ffi::refuse_call(call, reason);
  return -1;
}

int refuseNull(const char *call, const char *argument) {
  return refuse(call, std::string(argument) + " is NULL");
}

void copyText(rust::Str from, char *to, size_t capacity) {
  if (capacity == 0)
    return;
  const size_t length = std::min(from.size(), capacity - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

} // namespace flagcx::p2p
