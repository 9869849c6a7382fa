// SPDX-License-Identifier: Apache-2.0
//
// GPU memory: which callbacks the engine uses. Inside FlagCX those of its device adaptor, found by the weak symbol and
// read at each use, because a plugin may replace it; a table that the program installed goes before it. With neither the
// engine finds a GPU driver by itself, or does without.
#include "facade.h"

#include <atomic>

#include "adaptor.h"
#include "flagcx_p2p_ext.h"

// FlagCX's variable: a pointer to its struct flagcxDeviceAdaptor.
extern "C" __attribute__((weak)) const char *deviceAdaptor;

namespace {

using flagcx::p2p::Callbacks;

static_assert(sizeof(FlagcxP2pDeviceTable) == 8 + sizeof(Callbacks), "");
static_assert(offsetof(FlagcxP2pDeviceTable, deviceMemcpy) == 8, "");
static_assert(offsetof(FlagcxP2pDeviceTable, getLastError) == 8 + 19 * sizeof(void *), "");
static_assert(offsetof(FlagcxP2pDeviceTable, getPointerType) == 8 + 23 * sizeof(void *), "");

// What the program installed last, and before. Read without a lock, which another thread could hold when the process is
// forked; never freed, because another thread may be reading it.
struct Installed {
  FlagcxP2pDeviceTable table;
  const Installed *former;
};
std::atomic<const Installed *> installed{nullptr};

extern "C" void readAdaptor(void *out) {
  const char *const adaptor = deviceAdaptor;
  if (adaptor != nullptr)
    flagcx::p2p::readCallbacks(adaptor, *static_cast<Callbacks *>(out));
}

extern "C" void readInstalled(void *out) {
  if (const Installed *const now = installed.load(std::memory_order_acquire))
    std::memcpy(out, &now->table.deviceMemcpy, sizeof(Callbacks));
}

void useAdaptor() {
  flagcx::p2p::ffi::install_gpu_table(&deviceAdaptor != nullptr ? reinterpret_cast<size_t>(&readAdaptor) : 0);
}

} // namespace

namespace flagcx::p2p {

void startGpu() {
  // Not a local static that is initialised here: its guard may be held by another thread while the process forks.
  static std::atomic<bool> started{false};
  if (started.load(std::memory_order_acquire))
    return;
  useAdaptor();
  // What another thread has installed meanwhile stays.
  if (installed.load(std::memory_order_acquire) != nullptr)
    ffi::install_gpu_table(reinterpret_cast<size_t>(&readInstalled));
  started.store(true, std::memory_order_release);
}

int setGpuTable(const FlagcxP2pDeviceTable *table) {
  startGpu();
  if (table == nullptr) {
    useAdaptor();
    return 0;
  }
  if (table->size < sizeof(table->size)) {
    ffi::refuse_call("flagcxP2pSetDeviceTable", "the table's size is not set");
    return -1;
  }
  // A smaller table is an older program's: what it lacks is not offered.
  Installed *const next = new Installed{};
  std::memcpy(static_cast<void *>(&next->table), table,
              table->size < sizeof(next->table) ? table->size : sizeof(next->table));
  next->former = installed.load(std::memory_order_acquire);
  while (!installed.compare_exchange_weak(next->former, next, std::memory_order_acq_rel)) {
  }
  ffi::install_gpu_table(reinterpret_cast<size_t>(&readInstalled));
  return 0;
}

} // namespace flagcx::p2p
