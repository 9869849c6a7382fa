// SPDX-License-Identifier: Apache-2.0
//
// The net adaptor's registration.
#include <sys/mman.h>
#include <unistd.h>

#include "net_support.h"

using namespace support;

namespace {

using NetRegistration = NetPair;

TEST_F(NetRegistration, WorksOnEitherComm) {
  for (void *comm : {sendComm, recvComm}) {
    NetMemory memory(comm, 4096);
    ASSERT_NE(memory.handle(), nullptr);
    EXPECT_EQ(memory.view().base, memory.address());
    EXPECT_NE(memory.view().rkey, 0u);
    EXPECT_EQ(memory.view().device, 0);
  }
}

TEST_F(NetRegistration, TakesAnythingThatBeginsWithADevice) {
  struct {
    int device;
    const char *other;
  } own = {0, "whatever"};
  NetMemory memory(&own, 4096);
  EXPECT_NE(memory.handle(), nullptr);
}

TEST_F(NetRegistration, GivesEachRegistrationKeysOfItsOwn) {
  Memory memory(8192);
  void *first = nullptr, *second = nullptr, *part = nullptr;
  ASSERT_EQ(net.regMr(sendComm, memory.data(), 8192, FLAGCX_PTR_HOST, 0, &first), flagcxSuccess);
  ASSERT_EQ(net.regMr(recvComm, memory.data(), 8192, FLAGCX_PTR_HOST, 0, &second), flagcxSuccess);
  ASSERT_EQ(net.regMr(recvComm, memory.data(), 100, FLAGCX_PTR_HOST, FLAGCX_NET_MR_FLAG_FORCE_SO, &part),
            flagcxSuccess);
  const auto key = [](void *handle) { return static_cast<MemoryHandle *>(handle)->rkey; };
  EXPECT_NE(key(first), key(second));
  EXPECT_NE(key(first), key(part));
  for (void *handle : {second, part, first}) EXPECT_EQ(net.deregMr(nullptr, handle), flagcxSuccess);
}

TEST_F(NetRegistration, RefusesWhatIsNoMemory) {
  char bytes[64] = {};
  void *handle = nullptr;
  EXPECT_EQ(net.regMr(nullptr, bytes, 64, FLAGCX_PTR_HOST, 0, &handle), flagcxInvalidArgument);
  EXPECT_EQ(net.regMr(sendComm, nullptr, 64, FLAGCX_PTR_HOST, 0, &handle), flagcxInvalidArgument);
  EXPECT_EQ(net.regMr(sendComm, bytes, 0, FLAGCX_PTR_HOST, 0, &handle), flagcxInvalidArgument);
  EXPECT_EQ(net.regMr(sendComm, bytes, 64, FLAGCX_PTR_HOST, 0, nullptr), flagcxInvalidArgument);
  EXPECT_EQ(net.regMr(sendComm, bytes, SIZE_MAX, FLAGCX_PTR_HOST, 0, &handle), flagcxInvalidArgument);
  // Not mapped.
  void *const nowhere = reinterpret_cast<void *>(uintptr_t{1} << 46);
  EXPECT_EQ(net.regMr(sendComm, nowhere, 64, FLAGCX_PTR_HOST, 0, &handle), flagcxSystemError);
  EXPECT_EQ(handle, nullptr);
}

TEST_F(NetRegistration, RefusesInaccessibleMemoryAndTakesReadOnlyMemory) {
  const Memory memory(4 * 4096);
  void *handle = nullptr;
  ASSERT_EQ(mprotect(memory.data() + 4096, 4096, PROT_NONE), 0);
  EXPECT_EQ(net.regMr(sendComm, memory.data(), memory.size(), FLAGCX_PTR_HOST, 0, &handle), flagcxSystemError);
  EXPECT_NE(std::string(flagcxP2pEngineLastError()).find("EFAULT) from byte 4096"), std::string::npos)
      << flagcxP2pEngineLastError();
  EXPECT_EQ(handle, nullptr);
  ASSERT_EQ(mprotect(memory.data() + 4096, 4096, PROT_READ), 0);
  ASSERT_EQ(net.regMr(sendComm, memory.data(), memory.size(), FLAGCX_PTR_HOST, 0, &handle), flagcxSuccess);
  EXPECT_EQ(net.deregMr(sendComm, handle), flagcxSuccess);
}

TEST_F(NetRegistration, ADmaBufOfMinusOneIsNone) {
  Memory memory(4096);
  void *handle = nullptr;
  ASSERT_EQ(net.regMrDmaBuf(sendComm, memory.data(), 4096, FLAGCX_PTR_HOST, 0, -1, 0, &handle), flagcxSuccess);
  EXPECT_EQ(net.deregMr(sendComm, handle), flagcxSuccess);
}

TEST_F(NetRegistration, AFileThatIsNoDmaBufIsRefused) {
  Memory memory(4096);
  void *handle = nullptr;
  EXPECT_NE(net.regMrDmaBuf(sendComm, memory.data(), 4096, FLAGCX_PTR_DMABUF, 0, STDIN_FILENO, 0, &handle),
            flagcxSuccess);
  EXPECT_EQ(handle, nullptr);
}

TEST_F(NetRegistration, EndsOnce) {
  Memory memory(4096);
  void *handle = nullptr;
  ASSERT_EQ(net.regMr(sendComm, memory.data(), 4096, FLAGCX_PTR_HOST, 0, &handle), flagcxSuccess);
  EXPECT_EQ(net.deregMr(sendComm, handle), flagcxSuccess);
  EXPECT_EQ(net.deregMr(sendComm, handle), flagcxInvalidArgument);
  EXPECT_EQ(net.deregMr(sendComm, nullptr), flagcxInvalidArgument);
  EXPECT_EQ(net.deregMr(sendComm, memory.data()), flagcxInvalidArgument);
}

} // namespace
