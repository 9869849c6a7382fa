// SPDX-License-Identifier: Apache-2.0
//
// What the suites of the net adaptor's table share: a device, a connected pair of comms, registered memory.
#ifndef FLAGCX_P2P_TESTS_NET_SUPPORT_H_
#define FLAGCX_P2P_TESTS_NET_SUPPORT_H_

#include "../../cpp/src/net_types.h"
#include "support.h"

namespace support {

// What the original engine keeps behind an mhandle, as FlagCX reads it.
struct MemoryHandle {
  uint64_t base;
  uint32_t lkey;
  uint32_t rkey;
  void *region;
  int device;
};

// Memory that is registered through the table for as long as it lives.
class NetMemory : public Memory {
 public:
  NetMemory(void *comm, size_t bytes, uint8_t value = 0, int flags = 0);
  ~NetMemory();
  NetMemory(const NetMemory &) = delete;
  NetMemory &operator=(const NetMemory &) = delete;
  void *handle() const { return handle_; }
  // As the members of the table take a single handle.
  void **handles() const { return static_cast<void **>(handle_); }
  const MemoryHandle &view() const { return *static_cast<const MemoryHandle *>(handle_); }

 private:
  void *comm_;
  void *handle_ = nullptr;
};

// Polls until a request is done and answers what `test` answered then; fails the test after 10 s.
flagcxResult_t finish(void *request, int *size = nullptr);
// The same for many with testBatch; answers flagcxSuccess if no pass answered otherwise.
flagcxResult_t finishAll(std::vector<void *> &requests);

// An initialised table, and a sender connected to a receiver of the same process on device 0.
class NetPair : public testing::Test {
 protected:
  static constexpr size_t kBytes = 1 << 20;
  void SetUp() override;
  void TearDown() override;
  // Connects to `listenComm` while a thread accepts.
  static void connectTo(void *listenComm, void *handle, void **sendComm, void **recvComm);

  flagcxNetAdaptor_latest &net = flagcxNetIbP2p;
  char handle[128] = {};
  void *listenComm = nullptr;
  void *sendComm = nullptr;
  void *recvComm = nullptr;
};

} // namespace support

#endif // FLAGCX_P2P_TESTS_NET_SUPPORT_H_
