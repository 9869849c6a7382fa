// SPDX-License-Identifier: Apache-2.0
#include "facade.h"

#include <algorithm>
#include <string>

namespace flagcx::p2p {

int refuseNull(const char *call, const char *argument) {
  startLogging();
  ffi::refuse_call(call, std::string(argument) + " is NULL");
  return -1;
}

void copyText(rust::Str from, char *to, size_t capacity) {
  if (capacity == 0)
    return;
  const size_t length = std::min(from.size(), capacity - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

} // namespace flagcx::p2p
