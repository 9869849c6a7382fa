// SPDX-License-Identifier: Apache-2.0
//
// A stand-in for a GPU, of host memory: its addresses are reserved and cannot be accessed, only copies through the
// callbacks reach its memory. Counts objects that are created and not released, and fails on demand.
#ifndef FLAGCX_P2P_TESTS_FAKE_GPU_H_
#define FLAGCX_P2P_TESTS_FAKE_GPU_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "flagcx_p2p_ext.h"

namespace support {

struct FakeGpu {
  static constexpr size_t kBytes = 1 << 20;

  // The callbacks, all of them.
  static FlagcxP2pDeviceTable table();
  // Starts again: zeroed memory, device 0, no failures, counters at 0. Objects that still exist stay counted.
  static void reset();
  // The address of a byte as the GPU's owner knows it.
  static uintptr_t address(size_t offset = 0);
  // What lies behind an address.
  static std::string read(size_t offset, size_t bytes);
  static void write(size_t offset, const std::string &bytes);

  // Name of the callback that fails; "" for none. With `failAfter` above 0 that many calls succeed before.
  static void fail(const char *callback, int failAfter = 0);
  // How often eventQuery answers "still running" after each record.
  static void delay(int queries);

  static int currentDevice();
  static void setCurrentDevice(int device);
  // Live objects: streams, events and handle objects, opened IPC memory, and memory mapped for the CPU.
  static int streams, events, handles, opened, mappings;
  // Calls of streamCreate, setDevice, ipcMemHandleOpen and gdrPtrMmap so far.
  static int streamsMade, deviceChanges, opens, maps;
};

} // namespace support

#endif // FLAGCX_P2P_TESTS_FAKE_GPU_H_
