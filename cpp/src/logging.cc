// SPDX-License-Identifier: Apache-2.0
//
// Inside FlagCX log lines go through its own logger, which decides by FLAGCX_DEBUG what is printed and keeps the last
// warning for flagcxGetLastError. Stand-alone the weak symbol is null and the engine prints by itself.
#include <atomic>

#include "facade.h"

// FlagCX's levels: 2 WARN, 3 INFO, 5 TRACE.
enum flagcxDebugLogLevel : unsigned int {};

__attribute__((weak)) void flagcxDebugLog(flagcxDebugLogLevel level, unsigned long flags, const char *filefunc,
                                          int line, const char *fmt, ...);

namespace {

extern "C" void logToFlagcx(int32_t level, uint64_t flags, int32_t line, const char *text) {
  flagcxDebugLog(static_cast<flagcxDebugLogLevel>(level), flags, "flagcx_p2p", line, "%s", text);
}

} // namespace

void flagcx::p2p::startLogging() {
  // Not a local static that is initialised here: its guard may be held by another thread while the process forks.
  static std::atomic<bool> started{false};
  if (started.load(std::memory_order_acquire))
    return;
  ffi::start_logging(flagcxDebugLog ? reinterpret_cast<size_t>(&logToFlagcx) : 0);
  started.store(true, std::memory_order_release);
}
